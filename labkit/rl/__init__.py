"""Reinforcement learning: stacked networks, Gaussian policies, random streams, normalizers, statistics of seeds,
anybody's environments."""
