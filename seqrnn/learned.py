"""Sections of a report: what a model has learned, task by task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from seqrnn.checkpoint import restore_params
from seqrnn.config import Config
from seqrnn.data import vocabulary
from seqrnn.data.corpora import SPLITS
from seqrnn.errors import UserError
from seqrnn.evaluate import shapes
from seqrnn.experiment import Experiment, Params
from seqrnn.page import Element


class Subject(NamedTuple):
  """What a report is of.

  Attributes:
    workdir: of the run.
    config: of the run.
    experiment: its task.
    params: of the checkpoint.
    step: of the checkpoint.
    facts: of each split whose data are here.
    missing: why the others are not.
  """

  workdir: Path
  config: Config
  experiment: Experiment
  params: Params
  step: int
  facts: dict[str, dict[str, Any]]
  missing: list[str]


def open_run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Subject:
  """The run of a workdir; its data may have gone.

  Raises:
    UserError: nothing was trained there, or it is damaged.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  params, step = restore_params(workdir, config, shapes(experiment))
  facts, missing = {}, []
  for split in SPLITS:
    try:
      facts[split] = experiment.facts(split)
    except UserError as reason:
      missing.append(f"{split}: {reason}")
  return Subject(workdir, config, experiment, params, step, facts, missing)


def unit(config: Config) -> str:
  """What a symbol is, in words."""
  if config.task == "polyphony":
    return "frame"
  names = {"char": "character", "id": "event", "session": "event"}
  return names.get(config.data.unit, config.data.unit)


def sections(subject: Subject) -> list[Element]:
  """What can be said of this task."""
  return []
