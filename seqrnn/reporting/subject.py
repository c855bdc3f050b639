"""What a report is of: a trained run, and texts of its data."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqrnn import config as configs
from seqrnn.config import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.corpora import SPLITS
from seqrnn.data.encoding import Document
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.data.windows import Batches
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.models import network
from seqrnn.runtime.checkpoint import read_position, restore_params

# Symbols that are read, about, of a split that has more.
_READ = {"train": 50_000, "validation": 300_000, "test": 300_000}
# Where files are; the checksum of the training split says whether they are the
# same.
_PLACES = ("data.source", "data.path", "data.train_path")
# Fields of `data` that change how texts are read, and not which.
_READING = (
  *("data.window", "data.step", "data.offset", "data.random_offset"),
  *("data.buckets", "data.repeats", "data.stateful"),
)


class Subject(NamedTuple):
  """What a report is of.

  Attributes:
    workdir: of the run.
    config: of the run, but for what flags changed.
    trained: the config that it was trained with.
    experiment: its task.
    params: of the checkpoint.
    step: of the checkpoint.
    read: the pieces of a split.
    facts: of each split whose data are here.
    missing: why the others are not.
    other: why the splits are not those of the training; "": they are.
  """

  workdir: Path
  config: Config
  trained: Config
  experiment: Experiment
  params: Params
  step: int
  read: Callable[[str], Pieces]
  facts: dict[str, dict[str, Any]]
  missing: list[str]
  other: str

  @property
  def symbols(self) -> Vocabulary:
    """What it reads."""
    return self.experiment.vocabularies["symbols"]

  def batches(self, split: str) -> Batches:
    """Those of a split, or some of them where they have too many symbols."""
    experiment = self.experiment
    batches = experiment.batches(split, 0)
    most = _READ[split] * len(batches) // self.facts[split]["symbols"]
    most = max(1, most)
    if most >= len(batches):
      return batches
    # A stream goes on from batch to batch; windows are of any place.
    streams = jax.tree.leaves(jax.eval_shape(lambda: experiment.carry(1)))
    return batches[:: 1 if streams else len(batches) // most][:most]

  @property
  def target(self) -> str:
    """What is predicted, in words."""
    if self.experiment.names is None:
      return self.experiment.unit
    if self.config.task == "classification":
      return "text"
    return unit(self.config)

  @property
  def word(self) -> str:
    """What it reads, in words."""
    reads = self.experiment.reads
    return unit(self.config) if reads == "symbol" else reads

  @property
  def splits(self) -> list[str]:
    """The splits that can be read, those not trained on last."""
    return list(self.facts)

  def learned(self, split: str) -> str:
    """Whether a split was learned from, as a clause after its name."""
    if split == "train":
      if self.other:
        return "which is not the one that it learned from"
      return "which it learned from"
    if self.other:
      return "of which it may have learned from a part"
    return "which it did not learn from"

  @property
  def caution(self) -> str:
    """What a reader must know of the data of this page; "": nothing."""
    if not self.facts:
      return (
        "No data can be read here, so that figures and texts of splits are left"
        " out."
      )
    said = []
    if self.other:
      said.append(f"The data of this page are not the run's own: {self.other}.")
    if self.splits == ["train"]:
      clause = self.learned("train")
      said.append(
        "No held-out split can be read here: what follows is of the training"
        f" split, {clause}, and does not say how it does on new data."
      )
    return " ".join(said)


def open_run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Subject:
  """The run of a workdir; its data may have gone.

  Raises:
    UserError: nothing was trained there, or it is damaged.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  params, step = restore_params(
    workdir, config.checkpoint.step, shapes(experiment)
  )
  facts, missing = {}, []
  for split in SPLITS:
    try:
      facts[split] = experiment.facts(split)
    except UserError as reason:
      missing.append(f"{split}: {reason}")
  trained = configs.read_run(workdir, configs.defaults())
  position = read_position(workdir / "checkpoints" / str(step))
  return Subject(
    workdir,
    config,
    trained,
    experiment,
    params,
    step,
    splits.reader(config),
    facts,
    missing,
    _other(config, trained, facts.get("train"), position.get("crc32")),
  )


def _other(
  config: Config,
  trained: Config,
  facts: dict[str, Any] | None,
  crc32: int | None,
) -> str:
  """Why the data of a config are not those of a training; "": they are.

  Args:
    config: says what is read.
    trained: what was trained on.
    facts: of the training split as it is read; None: it cannot be.
    crc32: of the training split that was learned from; None: not known.
  """
  own, old = configs.flat(config), configs.flat(trained)
  same = facts is not None and facts["crc32"] == crc32
  differing = [
    name
    for name in own
    if name.startswith("data.")
    and name not in _READING
    and not (same and name in _PLACES)
    and own[name] != old.get(name)
  ]
  if differing:
    return f"not as in the training are {', '.join(differing)}"
  if facts is not None and crc32 is not None and not same:
    return "the training split has changed since"
  return ""


def writer(
  build: Callable[..., Experiment], subject: Subject
) -> Subject | None:
  """The language model that a run is, or that a gap model has in it.

  That is its forward tower, where this one has a head. None: it cannot write.
  """
  experiment = subject.experiment
  if not experiment.writes_text:
    return None
  if not experiment.fills_gaps:
    return subject
  config = copy.deepcopy(subject.config)
  config.task, config.model.heads = "language_model", "joint"
  config.model.bidirectional = False
  return subject._replace(
    config=config,
    experiment=build(config, experiment.vocabularies),
    params=network.forward_params(subject.params),
  )


def unit(config: Config) -> str:
  """What a symbol is, in words."""
  name: str = config.data.unit
  return {"char": "character", "id": "event", "session": "event"}.get(
    name, name
  )


def a(word: str) -> str:
  """The word with its article."""
  return f"an {word}" if word[0] in "aeiou" else f"a {word}"


class Passage(NamedTuple):
  """A part of a document, and what stands before it there."""

  document: Document
  before: str | list[str]


def passages(
  pieces: Pieces, rows: int, length: int, symbols: int
) -> list[Passage]:
  """Beginnings of documents and, of few ones, parts that begin with a line.

  Args:
    pieces: of a split.
    rows: how many, where there is enough.
    length: symbols of each, at most.
    symbols: of all together, for which there are more rows where documents are
      short.
  """
  made, total = [], 0
  each = -(-rows // len(pieces))
  for document in pieces.documents():
    start, text = 0, document.symbols
    for _ in range(each):
      stop = min(start + length, len(text))
      if stop - start < 2:
        break
      part = document._replace(
        symbols=text[start:stop],
        begins=document.begins and start == 0,
        ends=document.ends and stop == len(text),
      )
      made.append(Passage(part, text[:start]))
      total += stop - start
      if len(made) >= rows and total >= symbols or len(made) == 32 * rows:
        return made
      breaks = (n for n in range(stop, len(text)) if text[n] == "\n")
      start = next(breaks, stop - 1) + 1
  return made


def encoded(
  texts: list[Passage], symbols: Vocabulary, boundaries: bool
) -> np.ndarray:
  """Passages as rows of ids [B, S], PAD at the right."""
  rows = [
    [BEGIN] * (document.begins and boundaries)
    + symbols.encode(document.symbols).tolist()
    + [END] * (document.ends and boundaries)
    for document, _ in texts
  ]
  ids_BS = np.full((len(rows), max(map(len, rows))), PAD, np.int32)
  for ids_S, row in zip(ids_BS, rows, strict=True):
    ids_S[: len(row)] = row
  return ids_BS


def shown(symbols: Vocabulary, i: int) -> str:
  """A symbol as it stands in a coloured text."""
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
  return name if joined else f"{name} "


def named(symbols: Vocabulary, i: int) -> str:
  """A symbol as a name by itself, where a blank must be seen."""
  [name] = symbols.names([i])
  return {" ": "space", "\\n": "\u21b5 newline", "\\t": "tab"}.get(name, name)
