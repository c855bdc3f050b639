"""Samples of a trained model: symbol by symbol, in gaps, under a pattern."""
