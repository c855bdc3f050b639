"""Tests of seqrnn/logs/spark."""
