"""Tests of seqrnn/modes."""
