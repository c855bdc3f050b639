"""Sections of a report on the predictions of a model with labels."""

import jax
import numpy as np

from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.reporting.page import Section, section
from seqrnn.reporting.subject import Subject, coloured_text
from seqrnn.runtime import sharding
from seqrnn.scoring.evaluation import examiner
from seqrnn.scoring.predictions import predictions

_LABELS = 30  # Most frequent labels, in the confusion table.
_LIKELY = 5  # Most likely labels, for each symbol.


def sections(subject: Subject) -> list[Section]:
  """The sections on tags and confusion."""
  if not subject.facts or subject.experiment.labels is None:
    return []
  split = subject.splits[-1]
  parts = [_confused(subject, split)]
  if not subject.experiment.by_text:
    parts.insert(0, _tagged(subject, split))
  return [{"split": split, **part} for part in parts]


def _confused(subject: Subject, split: str) -> Section:
  """The confusion table."""
  labels = subject.experiment.labels
  mesh = sharding.mesh()
  params = jax.device_put(subject.params, sharding.replicated(mesh))
  counted = examiner(subject.experiment, mesh)(params, subject.batches(split))
  assert counted is not None and counted[1] is not None, "there are labels"
  counts_VV = counted[1].confusion(len(labels)).astype(np.int64)
  # Ids are sorted by frequency in the training split.
  present = np.flatnonzero(counts_VV.any(0) | counts_VV.any(1))
  columns = present[present > UNKNOWN][:_LABELS]
  rows = [i for i in [*columns, UNKNOWN] if counts_VV[i].any()]
  total_V = np.maximum(counts_VV.sum(1), 1)
  levels_VV = np.ceil(4 * counts_VV / total_V[:, None]).astype(int)

  def cell(truth, best):
    kind = "p" if truth == best else "n"
    return int(counts_VV[truth, best]), f"{kind}{levels_VV[truth, best]}"

  return section(
    "Confusion of labels",
    "confusion",
    labels=labels.names(columns),
    rows=[
      (labels.names([truth])[0], [cell(truth, best) for best in columns])
      for truth in rows
    ],
    more=len(labels.symbols) - len(columns),
  )


def _tagged(subject: Subject, split: str) -> Section:
  """A text coloured by the surprisal of its true tags."""
  rows = predictions(subject.experiment, subject.params, split, _LIKELY)
  part = coloured_text(subject, rows, subject.experiment.labels)
  return section("Tagged text", "tagged", reading=part)
