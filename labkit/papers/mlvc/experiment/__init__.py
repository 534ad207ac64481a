"""The method put to the test: scenes with known motion, a small codec around one network, the networks of the paper."""
