"""BERT-fused neural machine translation (Zhu et al., ICLR 2020, arXiv 2002.06823)."""
