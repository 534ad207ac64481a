"""The paper's contribution, one file per idea. Knows no config, no run directory, no figure."""
