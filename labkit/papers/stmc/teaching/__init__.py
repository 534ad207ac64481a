"""What the notebook shows: figures, scenes, checks, exercises."""
