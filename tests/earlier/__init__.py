"""Runs that an earlier version has made."""
