"""Recurrent networks on sequences of symbols, in JAX and Flax.

The functions and classes of this module are the Python API. They are loaded
when they are first used: `import seqrnn` itself imports no JAX.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from experiments import Run as Run
  from seqrnn.errors import Interrupted as Interrupted
  from seqrnn.errors import UserError as UserError
  from seqrnn.inference.predictions import Prediction as Prediction
  from seqrnn.table import Table as Table

# Class -> its module, which is imported when the class is used.
_CLASSES = {
  "Interrupted": "seqrnn.errors",
  "Prediction": "seqrnn.inference.predictions",
  "Run": "experiments",
  "Table": "seqrnn.table",
  "UserError": "seqrnn.errors",
}

__all__ = [
  "Interrupted",
  "Prediction",
  "Run",
  "Table",
  "UserError",
  "load",
  "runs",
]


def load(workdir: str | os.PathLike[str], step: int | None = None) -> "Run":
  """Loads a trained run.

  Example:
    >>> run = seqrnn.load("runs/rnn")
    >>> run.sample("import ", temperature=0.5, length=200)

  Args:
    workdir: the folder of the run.
    step: of a checkpoint; None: the one of the lowest validation loss.

  Raises:
    UserError: nothing was trained there, a file is damaged, or this version
      does not have a field of the run's config.
  """
  return _experiments().load(workdir, step)


def runs(*paths: str | os.PathLike[str]) -> "Table":
  """Gathers runs in a table, a row for each.

  Its columns are `run`, the name; the fields of the config that differ between
  the runs, by their dotted names; `step`, of the evaluation with the lowest
  validation loss; and the figures of that evaluation: `train_loss`,
  `validation_loss` and so on, and `test_loss` and so on if `--mode=evaluate`
  has evaluated that checkpoint. `--mode=report` of several workdirs prints the
  same table.

  Example:
    >>> seqrnn.runs("runs/rnn*").to_pandas().sort_values("validation_loss")

  Args:
    *paths: workdirs, and patterns of workdirs such as `runs/*`; without a path,
      `runs/*`. A run that only a pattern names and that cannot be read is left
      out, with a warning on stderr.

  Raises:
    UserError: a path has no run, or a pattern matches none.
  """
  from seqrnn.reporting import gathering

  return gathering.gather(*gathering.find(paths or ("runs/*",)))


def _experiments() -> Any:
  """The package of the tasks.

  Raises:
    UserError: Python finds another package of that name first.
  """
  import experiments

  if not hasattr(experiments, "TASKS"):
    from seqrnn.errors import UserError

    place = experiments.__file__ or list(experiments.__path__)[0]
    raise UserError(
      f"{place}: is imported in place of seqrnn's package `experiments`; rename"
      " it, or start Python in another folder"
    )
  return experiments


def __getattr__(name: str) -> Any:
  if name in _CLASSES:
    return getattr(importlib.import_module(_CLASSES[name]), name)
  raise AttributeError(f"module 'seqrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
