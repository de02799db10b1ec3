"""Likelihoods and text of any model, by whoever asks; without lm-eval."""
