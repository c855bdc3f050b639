"""The training loop, its step, checks, schedules and tables."""
