"""Tests of seqrnn/scoring."""
