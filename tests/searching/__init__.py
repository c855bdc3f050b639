"""Tests of seqrnn/searching."""
