"""What is trained on: small worlds as tensors, simulated robots behind the same face."""
