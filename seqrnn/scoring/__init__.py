"""Predictions, scores and states of a trained model, and its metrics."""
