"""Measures that no library has: the protocols of benchmarks. Common measures come from torchmetrics and its like."""
