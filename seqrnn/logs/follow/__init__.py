"""Follows logs: verdicts on sessions as their events arrive."""
