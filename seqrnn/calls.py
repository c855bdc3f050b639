"""Runs a mode from Python, with the settings of the command line."""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from seqrnn.config import command, suggestions
from seqrnn.config import read as config_lib
from seqrnn.config.read import FIELDS, Config
from seqrnn.config.resolve import Facts, resolve, this_machine
from seqrnn.errors import UserError, visible
from seqrnn.experiment import Experiment
from seqrnn.logs.detect import tables
from seqrnn.logs.detect.findings import Findings
from seqrnn.runtime import compiled, devices, files, launch
from seqrnn.table import read_csv_frame

if TYPE_CHECKING:
  import pandas as pd  # pyright: ignore[reportMissingImports]

ConfigName = str | os.PathLike[str] | ConfigDict | None

_THREADS = "PJRT_NPROC"  # The number of XLA's threads, for JAX.
_LIMIT = 2**27  # Bytes of a table or a report.


@dataclass(frozen=True)
class Study:
  """The result of a search.

  Attributes:
    workdir: the folder of the search. The workdir of trial 7 is trials/0007.
    best: the values of the searched fields in the best trial.
  """

  workdir: Path
  best: dict[str, Any]

  @property
  def trials(self) -> "pd.DataFrame":
    """A row for each trial, as in trials.csv.

    Its columns are `trial`, its number; `state`; `loss`, the lowest validation
    loss in the unit of the task's loss; `evaluations`; `symbols`; `seconds`;
    the fields that are searched; and `error`.
    """
    frame = read_csv_frame(self.workdir / "trials.csv", FIELDS.__contains__)
    for name in FIELDS.keys() & set(frame.columns):
      parse = FIELDS[name].parse
      frame[name] = [
        parse(x) if isinstance(x, str) else None for x in frame[name]
      ]
    return frame


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
    summary = "no session flagged"
    if self.findings is not None:
      summary = tables.summary(self.findings)
    return f"Detection({self.workdir}: {summary})"


def call(
  build: Callable[..., Experiment],
  mode: str,
  config: ConfigName,
  workdir: str | os.PathLike[str] | None,
  settings: Mapping[str, Any],
  verbose: bool,
) -> tuple[Any, Config, Path]:
  """Runs a mode as the command line does.

  Args:
    build: a function config, vocabularies or None -> Experiment.
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
  if getattr(multiprocessing.current_process(), "_inheriting", False):
    sys.exit(
      "error: a worker of a search imports this script; put the calls of seqrnn"
      ' below `if __name__ == "__main__":`'
    )
  with errors_of_python():
    resolved, folder = _resolve(mode, config, workdir, settings)
    with (
      _started(resolved, mode) as resolved,
      open(os.devnull, "w") as nowhere,
      redirect_stdout(sys.stdout if verbose else nowhere),
    ):
      module = importlib.import_module(f"seqrnn.modes.{mode}")
      return module.run(build, resolved, folder), resolved, folder


@contextmanager
def errors_of_python() -> Iterator[None]:
  """Makes errors name arguments, which the command line has as flags.

  Raises:
    UserError: for every error that the command line prints in a line.
  """
  try:
    yield
  except Exception as error:
    line = launch.user_message(error)
    if line is None or isinstance(error, UserError):
      raise
    raise UserError(line) from error


def _resolve(
  mode: str,
  config: ConfigName,
  workdir: str | os.PathLike[str] | None,
  settings: Mapping[str, Any],
) -> tuple[Config, Path]:
  """Returns the config and the workdir, as the command line resolves them."""
  if isinstance(config, ConfigDict) and workdir is None:
    raise UserError("workdir: is missing; a ConfigDict has no name for one")
  try:
    if config is not None and not isinstance(config, ConfigDict):
      config = os.fspath(config)
    folder = None if workdir is None else os.fspath(workdir)
  except TypeError:
    raise UserError(
      f"{config=}, {workdir=}: must be names or paths; config may be a"
      " ConfigDict; fields are keyword arguments, as epochs=3"
    ) from None
  request: Any = SimpleNamespace(
    config=config, workdir=folder, mode=mode, follow=False, process_id=None
  )
  overrides = dict(_override(*pair) for pair in settings.items())
  return command.resolve(request, overrides, None)


def _override(name: str, value: Any) -> tuple[str, Any]:
  """Returns the full name of a field, and its value in the field's type.

  Raises:
    UserError: no field or several have this name, or the type is wrong.
  """
  names = [name] if name in FIELDS else suggestions.with_last_part(name, FIELDS)
  if not names:
    raise UserError(config_lib.no_such_field(name))
  field, full = FIELDS[names[0]], names[0]
  if len(names) > 1:
    raise UserError(
      f"{name}={value!r}: several groups have this field, {', '.join(names)};"
      f' name one: **{{"{full}": {value!r}}}'
    )
  try:
    if field.repeated:
      return full, field.cast(tuple(value))
    return full, field.parse(config_lib.text(value))
  except (ValueError, TypeError):
    raise UserError(config_lib.wrong_type(full, value)) from None


@contextmanager
def _started(config: Config, mode: str) -> Iterator[Config]:
  """Starts JAX, unless this process has, and leaves its environment as it is.

  Yields the config with the number of CPU devices that JAX has.
  """
  import jax

  config, _ = resolve(config, Facts(machine=this_machine(mode)))
  threads = config.train.cpu_threads
  several = mode == "search" and config.search.workers > 1
  before = os.environ.get(_THREADS)
  try:
    with suppress(RuntimeError):  # JAX has started, and keeps its devices.
      launch.configure_device(
        config.train.cpu_devices, None if several else threads
      )
    compiled.enable_in_process()
    for line in devices.start(named=mode == "train"):
      print(visible(line), file=sys.stderr)
    if several and threads is not None:  # Of the workers, not of this process.
      os.environ.setdefault(_THREADS, str(threads))
    if jax.default_backend() == "cpu":
      config.train.cpu_devices = jax.local_device_count()
    yield config
  finally:
    if before is None:
      os.environ.pop(_THREADS, None)
