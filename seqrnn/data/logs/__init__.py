"""Logs: from lines to events to sessions."""
