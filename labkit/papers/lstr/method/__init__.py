"""The paper's contribution, one file per idea. Only its abstract is known to us: formulas are our reading of it."""
