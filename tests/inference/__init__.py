"""Tests of seqrnn/inference."""
