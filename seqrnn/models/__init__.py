"""Recurrent networks: cells, scans, layers, heads, and their size."""
