"""Tests of seqrnn/reporting."""
