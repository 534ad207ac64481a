"""What makes a run a run and a claim a claim."""
