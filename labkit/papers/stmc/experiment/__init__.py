"""The method put to the test: signing avatars, real corpora, rivals, training, error rates, claims."""
