"""Tests of seqrnn/data."""
