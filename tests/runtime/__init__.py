"""Tests of seqrnn/runtime."""
