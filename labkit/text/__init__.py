"""Tools for text that are no single paper's: how a sequence model is asked for its best output."""

from labkit.text.search import BeamStep, Hypothesis, StepDecoder, beam_search, greedy, sample

__all__ = ["BeamStep", "Hypothesis", "StepDecoder", "beam_search", "greedy", "sample"]
