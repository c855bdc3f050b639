"""Tests of seqrnn/training."""
