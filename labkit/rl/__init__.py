"""What reinforcement-learning rooms share: stacked networks, policies, replay, goal environments, statistics."""
