"""The method put to the test: data, arms, training, claims."""
