"""Batches: windows and streams of a split's documents."""
