"""Recurrent networks on sequences of symbols, in JAX and Flax.

The functions and classes of this module are the Python API. They are loaded
when they are first used: `import seqrnn` itself imports no JAX.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Level 3: fatal errors only. XLA logs programs that it loads from a cache as
# errors. It reads this when JAX is imported, which sets 1 if this is not set.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if TYPE_CHECKING:
  from pathlib import Path

  import pandas as pd  # pyright: ignore[reportMissingImports]

  from seqrnn.calls import ConfigName
  from seqrnn.calls import Detection as Detection
  from seqrnn.calls import Study as Study
  from seqrnn.errors import Interrupted as Interrupted
  from seqrnn.errors import UserError as UserError
  from seqrnn.experiments import Run as Run
  from seqrnn.scoring.predictions import Prediction as Prediction

# Class -> its module, which is imported when the class is used.
_CLASSES = {
  "Detection": "seqrnn.calls",
  "Interrupted": "seqrnn.errors",
  "Prediction": "seqrnn.scoring.predictions",
  "Run": "seqrnn.experiments",
  "Study": "seqrnn.calls",
  "UserError": "seqrnn.errors",
}

__all__ = [
  "Detection",
  "Interrupted",
  "Prediction",
  "Run",
  "Study",
  "UserError",
  "detect",
  "export",
  "from_export",
  "load",
  "runs",
  "search",
  "train",
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
  from seqrnn import calls, experiments

  with calls.errors_of_python():
    return experiments.load(workdir, step)


def train(
  config: "ConfigName" = None,
  workdir: str | os.PathLike[str] | None = None,
  *,
  verbose: bool = True,
  **settings: Any,
) -> "Run":
  """Trains or resumes a run, as `--mode=train` does.

  The same call resumes a run that was stopped; that of a finished run loads it.
  JAX starts once in a process: its number of CPU devices is that of the first
  training, and affects the speed.

  Example:
    >>> run = seqrnn.train("rnn", hidden_size=256, epochs=1)
    >>> run.metrics["validation_loss"].iloc[-1]
    1.3912

  Args:
    config: the name or the path of a config, as for `--config`, or a
      ConfigDict; None: that of the run in the workdir.
    workdir: the folder of the run; None: `runs/`, then the name of the config
      and of the settings.
    verbose: whether to print the progress; warnings are printed on stderr.
    **settings: fields of the config, such as `hidden_size=256`; where several
      groups have a field, by its dotted name, `**{"optimizer.name": "adam"}`.

  Returns:
    the run, with the checkpoint of the lowest validation loss.

  Raises:
    UserError: a setting is not valid, the workdir holds another run or is in
      use, or training fails; the message is one line.
    Interrupted: SIGINT (Ctrl-C, or a notebook's stop button) or SIGTERM was
      received; a checkpoint was saved.
  """
  from seqrnn import calls, experiments

  _, _, folder = calls.call(
    experiments.build, "train", config, workdir, settings, verbose
  )
  return experiments.load(folder)


def search(
  config: "ConfigName" = None,
  workdir: str | os.PathLike[str] | None = None,
  *,
  verbose: bool = True,
  **settings: Any,
) -> "Study":
  """Searches hyperparameters, as `--mode=search` does.

  In a script, call it below `if __name__ == "__main__":`, because the workers
  (`search.workers`) import the script. With a GPU or TPU, this process trains
  one trial after the other; on the command line, each GPU has a worker.

  Example:
    >>> study = seqrnn.search("rnn", trials=10)
    >>> study.trials.sort_values("loss")
    >>> study.best
    {'optimizer.learning_rate': 0.0131}

  Args:
    config: as of `train`.
    workdir: as of `train`.
    verbose: as of `train`.
    **settings: as of `train`.

  Returns:
    the trials, and the values of the best one.

  Raises:
    UserError: a setting is not valid, the packages optuna and scikit-learn are
      missing, the workdir holds another search, or no trial has finished.
    Interrupted: as `train`; the same call resumes the search.
  """
  from seqrnn import calls, experiments

  best, _, folder = calls.call(
    experiments.build, "search", config, workdir, settings, verbose
  )
  return calls.Study(folder, best)


def detect(
  config: "ConfigName" = None,
  workdir: str | os.PathLike[str] | None = None,
  *,
  verbose: bool = True,
  **settings: Any,
) -> "Detection":
  """Finds anomalous sessions with a trained run, as `--mode=detect` does.

  Example:
    >>> detection = seqrnn.detect(workdir="runs/logs", **{"detect.rate": 0.001})
    >>> detection.incidents[["severity", "sessions", "event"]]

  Args:
    config: as of `train`.
    workdir: the folder of the run; None: as of `train`.
    verbose: as of `train`.
    **settings: as of `train`.

  Returns:
    the tables of the detection, p-values from 0 to 1 and surprisals in nats.

  Raises:
    UserError: a setting is not valid, there is no run, its task cannot detect,
      or a detection of the run is in progress.
  """
  from seqrnn import calls, experiments

  findings, resolved, folder = calls.call(
    experiments.build, "detect", config, workdir, settings, verbose
  )
  return calls.Detection(folder, findings, resolved.detect.engine == "spark")


def export(
  workdir: str | os.PathLike[str], format: str = "safetensors", **settings: Any
) -> "Path":
  """Writes a trained run for PyTorch or ONNX, as `--mode=export` does.

  Example:
    >>> seqrnn.export("runs/rnn", "onnx")
    PosixPath('runs/rnn/export/model.onnx')

  Args:
    workdir: the folder of the run.
    format: safetensors or onnx.
    **settings: as of `train`.

  Returns:
    the path of the file; its folder has the vocabulary and a model card, too.

  Raises:
    UserError: there is no run, the format has no place for a part of the model,
      or a package is missing.
  """
  from seqrnn import calls, experiments

  settings = {"export.format": format, **settings}
  path, _, _ = calls.call(
    experiments.build, "export", None, workdir, settings, verbose=False
  )
  return path


def from_export(
  folder: str | os.PathLike[str], workdir: str | os.PathLike[str]
) -> "Run":
  """Makes a run of the files of an export, the inverse of `export`.

  The parameters are the same to the bit. The run has all modes, but it is not
  trained further, as an export has no state of an optimizer.

  Example:
    >>> run = seqrnn.from_export("runs/rnn/export", "runs/again")

  Args:
    folder: holds model.safetensors, vocabulary.json and config.json.
    workdir: the folder of the run, which must not hold one.

  Raises:
    UserError: a file cannot be read, or the tensors are not those of the model
      of config.json.
  """
  from pathlib import Path

  from seqrnn import experiments
  from seqrnn.exporting.tensors import make_run

  source, target = (Path(os.path.expanduser(x)) for x in (folder, workdir))
  make_run(experiments.build, source, target)
  return experiments.load(target)


def runs(*paths: str | os.PathLike[str]) -> "pd.DataFrame":
  """Gathers runs in a table, a row for each.

  Its columns are `run`, the name; the fields of the config that differ between
  the runs, by their dotted names; `state`: finished, or the step of the last
  checkpoint; `step`, of the evaluation with the lowest validation loss; and the
  figures of that evaluation: `train_loss`, `validation_loss`, accuracies and so
  on, and `test_loss` and so on if `--mode=evaluate` has evaluated that
  checkpoint. `--mode=report` of several workdirs prints this table.

  Example:
    >>> seqrnn.runs("runs/rnn*").sort_values("validation_loss")

  Args:
    *paths: workdirs, and patterns of workdirs such as `runs/*`; the workdir of
      a search stands for its trials; without a path, `runs/*`.

  Raises:
    UserError: a path has no run, a pattern matches none, or a run is damaged.
  """
  from seqrnn.reporting import gathering
  from seqrnn.table import data_frame

  workdirs = gathering.find_workdirs(paths or ("runs/*",))
  return data_frame(gathering.gather(workdirs))


def __getattr__(name: str) -> Any:
  if name in _CLASSES:
    return getattr(importlib.import_module(_CLASSES[name]), name)
  raise AttributeError(f"module 'seqrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
