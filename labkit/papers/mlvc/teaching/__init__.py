"""What the notebook shows."""
