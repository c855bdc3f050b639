"""The hidden size that a number of parameters allows."""

import bisect
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from seqrnn.data import vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, shapes
from seqrnn.settings.config import Config


def fit(
  build: Callable[..., Experiment], config: Config, vocabularies: dict[str, Any]
) -> Config:
  """The config with the largest hidden size that `model.parameters` allows.

  Only shapes are computed, no parameters.

  Raises:
    UserError: a model of one unit has more parameters.
  """
  config = copy.deepcopy(config)
  budget = config.model.parameters

  def count(size: int) -> int:
    config.model.hidden_size = size
    leaves = jax.tree.leaves(shapes(build(config, vocabularies)))
    return sum(leaf.size for leaf in leaves)

  # A unit has at least one parameter, and a hidden size is at most 2**24.
  sizes = range(1, min(budget, 2**24) + 1)
  size = bisect.bisect_right(sizes, budget, key=count)
  if not size:
    raise UserError(
      f"config.model.parameters={budget}: the smallest model, with"
      f" model.hidden_size=1, has {count(1)}"
    )
  config.model.hidden_size = size
  return config


def settle(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> tuple[Config, Experiment]:
  """The config and the experiment of a run.

  A run that has started keeps its vocabularies and its hidden size.
  """
  names = workdir / "vocabulary.json"
  known = vocabulary.load(names) if names.exists() else None
  experiment = build(config, known)
  if config.model.parameters and not (workdir / "config.json").exists():
    config = fit(build, config, experiment.vocabularies)
    model = config.model
    print(
      f"model.parameters={model.parameters}: model.hidden_size="
      f"{model.hidden_size}"
    )
    experiment = build(config, experiment.vocabularies)
  return config, experiment
