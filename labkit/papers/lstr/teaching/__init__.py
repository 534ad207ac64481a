"""What the notebook shows: pictures, what they look at, checks, exercises."""
