"""The method put to the test: generated actors, real datasets, arms with and without each relation."""
