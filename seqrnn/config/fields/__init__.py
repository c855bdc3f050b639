"""The groups of fields that configs/base.py has."""
