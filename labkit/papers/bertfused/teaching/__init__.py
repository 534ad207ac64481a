"""What the notebook shows and asks."""
