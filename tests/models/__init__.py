"""Tests of seqrnn/models."""
