"""The modes of run.py, one module each."""
