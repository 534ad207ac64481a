"""M-LVC (Lin et al., arXiv 2004.10290)."""
