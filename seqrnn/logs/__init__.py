"""Logs: sessions that are anomalous, in files, a growing log, or on Spark."""
