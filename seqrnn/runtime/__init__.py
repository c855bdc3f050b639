"""The files, checkpoints, devices and processes of a run."""
