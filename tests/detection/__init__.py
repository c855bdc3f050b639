"""Tests of seqrnn/detection."""
