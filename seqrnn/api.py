"""The Python API; `import seqrnn` has its names without importing it."""

import importlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ml_collections import ConfigDict

from seqrnn import experiments
from seqrnn.config import command, derived, suggestions
from seqrnn.config.field import Fields, FieldValue
from seqrnn.config.read import FIELDS, Config, converted
from seqrnn.data.read import frames
from seqrnn.errors import DataError, report
from seqrnn.errors import Interrupted as Interrupted
from seqrnn.errors import UserError as UserError
from seqrnn.exporting import tensors
from seqrnn.logs.detect import tables
from seqrnn.logs.detect.findings import Findings
from seqrnn.reporting import gathering
from seqrnn.run import Run as Run
from seqrnn.run import load_run
from seqrnn.runtime import devices, files, generations, launch
from seqrnn.scoring.predictions import Prediction as Prediction
from seqrnn.table import data_frame, read_csv_frame

if TYPE_CHECKING:
  import pandas as pd  # pyright: ignore[reportMissingImports]

StrPath = str | os.PathLike[str]
Workdir = StrPath | None
ConfigName = StrPath | ConfigDict | None

_LIMIT = 2**27  # Bytes of a table or a report.
_TURN = threading.RLock()  # Modes share sys.stdout, so threads take turns.


@dataclass(frozen=True)
class Study:
  """The result of a search.

  Attributes:
    workdir: the folder of the search. The workdir of trial 7 is trials/0007.
    best: the values of the searched fields in the best trial.
  """

  workdir: Path
  best: dict[str, FieldValue]

  @property
  def trials(self) -> "pd.DataFrame":
    """A row for each trial, as in trials.csv.

    Its columns are `trial`, its number; `state`; `loss`, the lowest validation
    loss in the unit of the task's loss; `evaluations`; `symbols`; `seconds`;
    the fields that are searched; and `error`.
    """
    return read_csv_frame(self.workdir / "trials.csv")


@dataclass(frozen=True)
class Detection:
  """The result of a detection; its tables are read when they are asked for.

  Attributes:
    workdir: the folder of the run; the tables are in its folder `detect`.
    findings: scores and flags as arrays; of Spark's detection those of the
      flagged sessions, or None if there are none.
    by_spark: whether Spark has written the tables, as folders of files, which
      are not read here.
  """

  workdir: Path
  findings: Findings | None
  by_spark: bool = False

  @property
  def sessions(self) -> "pd.DataFrame":
    """A row for each session, as in sessions.csv."""
    return self._table("sessions")

  @property
  def incidents(self) -> "pd.DataFrame":
    """A row for each group of similar alarms, as in incidents.csv."""
    return self._table("incidents")

  @property
  def events(self) -> "pd.DataFrame":
    """A row for each event of the flagged sessions, as in events.csv.

    `detect.events` selects the sessions.
    """
    return self._table("events")

  @property
  def report(self) -> dict[str, Any]:
    """The content of report.json: data, thresholds, and metrics of labels."""
    return files.read_json(self.workdir / "detect" / "report.json", _LIMIT)

  def _table(self, name: str) -> "pd.DataFrame":
    if self.by_spark:
      raise UserError(
        "config.detect.engine='spark': its tables are folders; read them with"
        " Spark"
      )
    path = self.workdir / "detect" / f"{name}.csv"
    return read_csv_frame(path, tables.is_text)

  def __repr__(self) -> str:
    summary = self.findings and tables.summary(self.findings)
    return f"Detection({self.workdir}: {summary or 'no session flagged'})"


def load(workdir: StrPath, step: int | None = None) -> Run:
  """Loads a trained run.

  Example:
    >>> run = seqrnn.load("runs/rnn")
    >>> run.sample("import ", temperature=0.5, length=200)

  Args:
    workdir: the folder of the run; `zoo:NAME`: a model of the zoo.
    step: of a checkpoint; None: the one of the lowest validation loss.

  Raises:
    UserError: nothing was trained there, a file is damaged, or this version
      does not have a field of the run's config.
  """
  with errors_of_python():
    path = _path("workdir", workdir)
    if command.in_zoo(path):
      path = command.zoo_run(str(path))
      tensors.complete(experiments.build, path)
    return load_run(generations.current(path), step)


def train(
  config: ConfigName = None,
  workdir: Workdir = None,
  *,
  data: Any = None,
  validation: Any = None,
  test: Any = None,
  verbose: bool = True,
  **settings: FieldValue,
) -> Run:
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
    data: a frame of pandas, polars or Hugging Face's datasets, or a dict of
      columns, with a text and a label, or an event and its session, in each
      row. It is written into the workdir, as a csv that the run reads.
    validation: a frame of the validation split; None: a part of `data`.
    test: a frame of the test split; None: a part of `data`.
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
  given = {"train": data, "validation": validation, "test": test}
  given = {name: frame for name, frame in given.items() if frame is not None}
  with errors_of_python():
    if given:
      if workdir is None or len(given) == 2 or data is None:
        raise DataError(
          "data=, validation=, test=: must be data= alone or all three, with"
          " workdir=, into which they are written"
        )
      contents = {
        f"{name}.csv": frames.encoded(frames.columns_of(f"{name} frame", frame))
        for name, frame in given.items()
      }
      fields = frames.written(_path("workdir", workdir) / "data", contents)
      settings = {**settings, "data.format": "csv", **fields}
  _, _, folder = call("train", config, workdir, settings, verbose)
  return load_run(folder)


def search(
  config: ConfigName = None,
  workdir: Workdir = None,
  *,
  verbose: bool = True,
  **settings: FieldValue,
) -> Study:
  """Searches hyperparameters, as `--mode=search` does.

  Several processes that search in one workdir share its trials.

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
  best, _, folder = call("search", config, workdir, settings, verbose)
  return Study(folder, best)


def detect(
  config: ConfigName = None,
  workdir: Workdir = None,
  *,
  verbose: bool = True,
  **settings: FieldValue,
) -> Detection:
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
  findings, resolved, folder = call(
    "detect", config, workdir, settings, verbose
  )
  return Detection(folder, findings, resolved.detect.engine == "spark")


def export(
  workdir: StrPath, format: str = "safetensors", **settings: FieldValue
) -> Path:
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
  settings = {"export.format": format, **settings}
  path, _, _ = call("export", None, workdir, settings, verbose=False)
  return path


def from_export(folder: StrPath, workdir: StrPath) -> Run:
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
  source, target = _path("folder", folder), _path("workdir", workdir)
  with errors_of_python():
    tensors.make_run(experiments.build, source, target)
    return load_run(target)


def runs(*paths: StrPath) -> "pd.DataFrame":
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
  for path in paths:
    _path("paths", path)
  with errors_of_python():
    workdirs = gathering.find_workdirs(paths or ("runs/*",))
    return data_frame(gathering.gather(workdirs))


def call(
  mode: str,
  config: ConfigName,
  workdir: Workdir,
  settings: Fields,
  verbose: bool,
) -> tuple[Any, Config, Path]:
  """Runs a mode as the command line does.

  Args:
    mode: the name of the mode.
    config: as --config; or a ConfigDict, which has no name for a workdir.
    workdir: as --workdir.
    settings: fields that override those of the config, by their names; the
      last part is enough if only one group has it.
    verbose: whether the mode prints to stdout.

  Returns:
    what the mode returns, and the config and the workdir it has used.

  Raises:
    UserError: as on the command line, in one line.
    Interrupted: SIGINT or SIGTERM was received.
  """
  with errors_of_python(), _TURN:
    resolved, folder = _resolve(mode, config, workdir, settings)
    resolved = _start(resolved, mode)
    with redirect_stdout(sys.stdout if verbose else _Quiet(sys.stdout)):
      if command.in_zoo(workdir):
        tensors.complete(experiments.build, folder)
      module = importlib.import_module(f"seqrnn.modes.{mode}")
      return module.run(experiments.build, resolved, folder), resolved, folder


@dataclass
class _Quiet(io.TextIOBase):
  """Standard output without the lines of seqrnn.

  Those of jax.debug.print, or of print in a cell of the user's, stay.
  """

  stream: TextIO

  def write(self, text: str) -> int:
    caller = sys._getframe(1).f_globals.get("__name__", "")
    quiet = caller.partition(".")[0] in ("seqrnn", "rich")
    return len(text) if quiet else self.stream.write(text)


def _path(name: str, value: StrPath) -> Path:
  """Returns the path of an argument."""
  try:
    return Path(files.plain(_text(value)))
  except TypeError:
    raise UserError(f"{name}={value!r}: must be the path of a folder") from None


def _text(path: StrPath) -> str:
  """Returns a path as text.

  Raises:
    TypeError: it is no path, has bytes, or has a NUL, which no path has.
  """
  text = os.fspath(path)
  if isinstance(text, bytes) or "\0" in text:
    raise TypeError
  return text


@contextmanager
def errors_of_python() -> Iterator[None]:
  """Makes a UserError of every error that the command line prints in a line."""
  launch.refuse_fork()
  try:
    yield
  except Exception as error:
    line = launch.user_message(error)
    if line is None or isinstance(error, UserError):
      raise
    raise UserError(line) from error


def _resolve(
  mode: str, config: ConfigName, workdir: Workdir, settings: Fields
) -> tuple[Config, Path]:
  """Returns the config and the workdir, as the command line resolves them."""
  if isinstance(config, ConfigDict) and workdir is None:
    raise UserError("workdir: is missing; a ConfigDict has no name for one")
  try:
    if config is not None and not isinstance(config, ConfigDict):
      config = _text(config)
    folder = None if workdir is None else _text(workdir)
  except TypeError:
    raise UserError(
      f"{config=}, {workdir=}: must be names or paths, as text without a NUL;"
      " config may be a ConfigDict; fields are keyword arguments, as epochs=3"
    ) from None
  request = command.Command(mode, config, folder)
  overrides = {}
  for name, value in settings.items():
    names = suggestions.with_last_part(name, FIELDS)
    if name not in FIELDS and len(names) > 1:
      raise UserError(
        f"{name}={value!r}: several groups have this field, {', '.join(names)};"
        f' name one: **{{"{names[0]}": {value!r}}}'
      )
    full = name if name in FIELDS or not names else names[0]
    overrides[full] = converted(full, value)
  return command.resolve(request, overrides)


def _start(config: Config, mode: str) -> Config:
  """Starts JAX, unless this process has; the config has its CPU devices."""
  import jax

  train = config.train
  with suppress(RuntimeError):  # JAX has started, and keeps its devices.
    launch.configure_device(train.cpu_devices, train.cpu_threads)
  for line in devices.start(named=mode == "train"):
    report(line)
  if jax.default_backend() == "cpu":
    return derived.on_devices(config, jax.local_device_count())
  return config
