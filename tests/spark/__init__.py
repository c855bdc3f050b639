"""Tests of seqrnn/spark."""
