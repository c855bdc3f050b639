"""Tests: a folder for each folder of seqrnn, and faults."""
