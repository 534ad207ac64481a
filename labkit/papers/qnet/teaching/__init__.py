"""What the notebook shows: pictures, widgets, checks and exercises."""
