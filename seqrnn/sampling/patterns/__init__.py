"""Patterns: samples that match a regular expression or a JSON schema."""
