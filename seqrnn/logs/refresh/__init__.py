"""A detector that stays current: kept sessions, and the next model of a run."""
