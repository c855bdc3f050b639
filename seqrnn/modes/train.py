"""train: trains or resumes a run, on all devices."""

from seqrnn.training.train import fit

run = fit
