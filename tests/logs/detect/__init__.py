"""Tests of seqrnn/logs/detect."""
