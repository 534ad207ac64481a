"""The paper's contribution: features split by cue with the help of a pose branch, and two paths through time."""
