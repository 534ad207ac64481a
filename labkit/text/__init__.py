"""Tools for text that are no single paper's: how a sequence model is asked for its best output."""
