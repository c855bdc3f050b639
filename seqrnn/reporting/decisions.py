"""Sections of a report on the predictions of a model with labels."""

import jax

from seqrnn.reporting import charts
from seqrnn.reporting.page import Section, section
from seqrnn.reporting.subject import Subject, coloured_text
from seqrnn.runtime import sharding
from seqrnn.scoring import confusion
from seqrnn.scoring.evaluation import examiner
from seqrnn.scoring.predictions import predictions

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
  """The confusion matrix."""
  labels = subject.experiment.labels
  mesh = sharding.mesh()
  params = jax.device_put(subject.params, sharding.replicated(mesh))
  counted = examiner(subject.experiment, mesh)(params, subject.batches(split))
  assert counted is not None and counted[1] is not None, "there are labels"
  table = confusion.confusion_table(labels, counted[1])
  words = "Counts of predicted labels by true label"
  chart = charts.chart(confusion.draw(table), words, words)
  return section("Confusion of labels", "confusion", chart=chart)


def _tagged(subject: Subject, split: str) -> Section:
  """A text coloured by the surprisal of its true tags."""
  rows = predictions(subject.experiment, subject.params, split, _LIKELY)
  part = coloured_text(subject, rows, subject.experiment.labels)
  return section("Tagged text", "tagged", reading=part)
