"""The method put to the test: configs, data, rivals, training, evaluation, claims."""
