"""Files, checkpoints, devices and processes of a run."""
