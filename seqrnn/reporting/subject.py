"""The subject of a report: a trained run, and texts of its data."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.batches.sequences import encode
from seqrnn.data.documents import Document
from seqrnn.data.sources.corpora import SPLITS
from seqrnn.data.splits import Pieces, Read, from_documents, reader
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params
from seqrnn.reporting.page import ColouredText, Mark, coloured
from seqrnn.scoring.predictions import Prediction
from seqrnn.training.setup import data_changed


class Subject(NamedTuple):
  """The subject of a report.

  Attributes:
    workdir: of the run.
    config: of the run, with the fields that flags changed.
    experiment: its task.
    params: of the checkpoint.
    step: of the checkpoint.
    read: reads the pieces of a split.
    sizes: the number of symbols of each split whose data can be read;
      held-out splits come last.
    missing: why the other splits cannot be read.
    changed: whether the training split is not that of the training.
  """

  workdir: Path
  config: Config
  experiment: Experiment
  params: Params
  step: int
  read: Read
  sizes: dict[str, int]
  missing: list[str]
  changed: bool

  @property
  def symbols(self) -> Vocabulary:
    """The vocabulary of its inputs."""
    return self.experiment.vocabularies["symbols"]

  @property
  def target(self) -> str:
    """The word for what is predicted."""
    if self.experiment.report.target:
      return self.experiment.report.target
    named = self.experiment.names is not None
    return unit(self.config) if named else self.experiment.unit

  @property
  def word(self) -> str:
    """The word for what is read."""
    reads = self.experiment.reads
    return unit(self.config) if reads == "symbol" else reads

  @property
  def splits(self) -> list[str]:
    """The splits that can be read; held-out splits come last."""
    return list(self.sizes)

  @property
  def caution(self) -> str:
    """A warning about the data; "" if none is necessary."""
    if not self.sizes:
      return "The data cannot be read here, so this page shows none of them."
    cautions = []
    if self.changed:
      cautions.append("The training split has changed since the training.")
    if self.splits == ["train"]:
      cautions.append(
        "No held-out split can be read here: texts and metrics are of the"
        " training split."
      )
    return " ".join(cautions)


def subject_of(
  workdir: Path,
  config: Config,
  experiment: Experiment,
  params: Params,
  step: int,
) -> Subject:
  """The subject of a run, whose data may be missing."""
  sizes, missing = {}, []
  for split in SPLITS:
    try:
      sizes[split] = experiment.facts(split)["symbols"]
    except UserError as reason:
      missing.append(f"{split}: {reason}")
  changed = data_changed(workdir, step, experiment)
  run = workdir, config, experiment, params, step
  return Subject(*run, reader(config), sizes, missing, changed)


def writer(subject: Subject) -> Subject | None:
  """The language model of a run; None if it has none."""
  experiment = subject.experiment
  if not experiment.writes_text:
    return None
  if experiment.writer is None:
    return subject
  inner, params = experiment.writer(subject.params)
  return subject._replace(experiment=inner, params=params)


def unit(config: Config) -> str:
  """The word for a symbol."""
  name: str = config.data.unit
  events = dict.fromkeys(("id", "session", "log"), "event")
  return {"char": "character", **events}.get(name, name)


def passages(pieces: Pieces, length: int, most: int) -> list[Document]:
  """The beginnings of documents, which have `length` symbols together.

  Args:
    pieces: of a split.
    length: the number of symbols, if there are as many.
    most: the number of documents, at most.
  """
  chosen, total = [], 0
  for document in pieces.documents():
    text = document.symbols[:length]
    if len(text) < 2:
      continue
    ends = document.ends and len(text) == len(document.symbols)
    chosen.append(document._replace(symbols=text, ends=ends))
    total += len(text)
    if total >= length or len(chosen) == most:
      break
  return chosen


def encoded(
  texts: list[Document], symbols: Vocabulary, boundaries: bool
) -> np.ndarray:
  """Texts as ids [B, S], padded at the right."""
  sequences = encode(from_documents(texts, symbols.unit), symbols, boundaries)
  starts, stops = sequences.bounds[:-1], sequences.bounds[1:]
  rows = np.arange(len(texts)), starts, stops
  return sequences.gather(*rows, int((stops - starts).max()))


def shown(symbols: Vocabulary, i: int) -> str:
  """A symbol as a coloured text shows it."""
  if i == END:
    return "\u220e\n"
  joined = symbols.unit in ("char", "byte")
  if i == UNKNOWN:
    return "\ufffd" if joined else "\ufffd "
  if i < UNKNOWN:
    return ""
  name = symbols.symbols[i - UNKNOWN - 1]
  if name == "\n":
    return "\u21b5\n"
  if symbols.unit == "char":
    return name
  [name] = symbols.names([i])
  # A name with a blank is a line of a log, so it has a line of its own.
  return name if joined else name + ("\n" if " " in name else " ")


def named(symbols: Vocabulary, i: int) -> str:
  """A symbol as it is shown on its own, with names for blanks."""
  [name] = symbols.names([i])
  return {" ": "space", "\\n": "\u21b5 newline", "\\t": "tab"}.get(name, name)


def coloured_text(
  subject: Subject, rows: Iterable[Prediction], names: Vocabulary
) -> ColouredText:
  """Texts coloured by the surprisal of their targets, as far as a page goes.

  Args:
    subject: the run.
    rows: the predictions for each text, or for each window of it.
    names: the vocabulary of the targets.
  """

  def marks() -> Iterator[Mark]:
    last = mark = None
    for p in rows:
      if mark and p.document != last and not mark.text.endswith("\n"):
        yield (mark := Mark("\n", "the end of a text"))
      for mark in _marks(subject.symbols, p, names):  # noqa: UP028
        yield mark
      last = p.document

  return coloured(marks(), math.log2(len(names.symbols)))


def _marks(
  symbols: Vocabulary, p: Prediction, names: Vocabulary
) -> Iterator[Mark]:
  """The symbols of a text, with the predictions that a model made at some."""
  answers = zip(p.surprisal, p.ids, p.probabilities, p.targets, strict=True)
  known = dict(zip(p.positions.tolist(), answers, strict=True))
  for t, i in enumerate(p.inputs):
    if i <= BEGIN:
      continue
    text, name = shown(symbols, i), named(symbols, i)
    if i == UNKNOWN and p.read[t]:  # The data have its name.
      own = dataclasses.replace(symbols, symbols=(p.read[t],))
      text, name = shown(own, i + 1), f"{named(own, i + 1)} (unknown)"
    bits, likely = None, []
    if t in known:
      nats, ids_K, chances_K, target = known[t]
      # JSON has no infinity.
      bits = min(float(nats) / math.log(2), 99)
      best = [named(names, i) for i in ids_K]
      likely = list(zip(best, chances_K, strict=True))
      if names is not symbols:
        name += f", {named(names, target)},"
    yield Mark(text, name, bits, likely)
