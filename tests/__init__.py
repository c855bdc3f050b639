"""Tests: a folder for each folder of seqrnn, faults and earlier runs."""
