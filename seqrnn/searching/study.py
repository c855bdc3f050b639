"""The trials of a search: Optuna's study, and their training."""

import contextlib
import itertools
import math
import secrets
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np
import optuna
import sqlalchemy
from optuna import distributions
from optuna.storages import journal
from optuna.trial import FrozenTrial, Trial, TrialState

from seqrnn.config.field import Fields
from seqrnn.config.read import Config, check
from seqrnn.errors import Interrupted, MachineError, UserError, visible
from seqrnn.experiment import Build
from seqrnn.runtime import devices, files, launch, private, signals
from seqrnn.searching import space
from seqrnn.training import train
from seqrnn.training.history import read_rows

COARSE_RATES = [float(f"1e-{power}") for power in range(8)]
STATES = {
  TrialState.COMPLETE: "finished",
  TrialState.PRUNED: "pruned",
  TrialState.FAIL: "failed",
  TrialState.RUNNING: "running",
}
_COLUMNS = "trial", "state", "loss", "evaluations", "symbols", "seconds"
_PAUSE = 0.2  # Seconds between two looks at the trials of other processes.
_ATTEMPTS = 3  # To resume from one evaluation, by processes that died.


class Search(NamedTuple):
  """What all trials share.

  Attributes:
    build: config, vocabularies or None -> Experiment.
    config: of the search; a trial replaces the fields that are searched.
    workdir: of the search.
    space: the fields that are searched, and their distributions.
    study: Optuna's.
  """

  build: Build
  config: Config
  workdir: Path
  space: space.Space
  study: optuna.Study

  def folder(self, number: int) -> Path:
    """The workdir of a trial."""
    return self.workdir / "trials" / f"{number:04}"

  def trials(self) -> list[FrozenTrial]:
    """All trials in their present state."""
    return self.study.get_trials(deepcopy=False)

  def ranked(self) -> list[FrozenTrial]:
    """The finished trials, the lowest loss first."""
    trials = [t for t in self.trials() if t.state == TrialState.COMPLETE]
    return sorted(trials, key=lambda trial: trial.values)

  def write(self):
    """Writes trials.csv and best.json."""
    rows: list[list] = [[*_COLUMNS, *self.space, "error"]]
    for trial in self.trials():
      attrs, params = trial.user_attrs, trial.params
      row = [trial.number, STATES[trial.state], trial.value]
      row += [len(trial.intermediate_values)]
      row += map(attrs.get, ("symbols", "seconds"))
      rows.append([*row, *map(params.get, self.space), attrs.get("error")])
    files.write_csv(self.workdir / "trials.csv", rows)
    for best in self.ranked()[:1]:
      path = self.folder(best.number) / "config.json"
      files.write(self.workdir / "best.json", path.read_bytes())


class _Journal(journal.JournalFileBackend):
  """Optuna's, whose errors name the file."""

  def __init__(self, path: Path):
    super().__init__(str(path), _JournalLock(path))
    self._path = path

  def append_logs(self, logs: list[dict[str, Any]]):
    with files.write_errors(self._path):
      super().append_logs(logs)


class _JournalLock(journal.JournalFileOpenLock):
  """The lock for writing to the journal; works on network file systems.

  It removes an incomplete last line, which a process leaves on a full disk: a
  line behind it would make the journal unreadable.
  """

  def __init__(self, path: Path):
    super().__init__(str(path))
    self._path = path

  def acquire(self) -> bool:
    super().acquire()
    with self._path.open("rb+") as file:
      file.seek(max(self._path.stat().st_size - 1, 0))
      if file.read() != b"\n":  # Rarely, as the journal may be long.
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    return True


def begin(build: Build, config: Config, workdir: Path) -> Search:
  """Opens the search of a workdir; creates its study if there is none.

  Raises:
    UserError: the space is wrong, the database or the journal cannot be read,
      or the trials are stored elsewhere.
  """
  parsed = space.parse_space(config)
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  experimental = optuna.exceptions.ExperimentalWarning
  warnings.filterwarnings("ignore", category=experimental)
  url, path = config.search.storage, workdir / "trials.log"
  if (workdir / "trials").exists() and path.exists() != (url is None):
    place = path if path.exists() else "a database"
    raise UserError(  # The URL may hold a password.
      f"config.search.storage: {workdir} has its trials in {place}; give the"
      " same storage as when the search began"
    )
  # The coarse method compares complete runs.
  coarse = config.search.method == "coarse"
  pruner = {
    "median": optuna.pruners.MedianPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "none": optuna.pruners.NopPruner,
  }["none" if coarse else config.search.pruning]()
  # Two processes must not create the tables of a database at once.
  with alone(workdir) as file:
    name = file.read().decode("utf-8", "replace")
    if not name:
      # A database may hold several studies. The name contains no path:
      # machines may mount the workdir in different places.
      name = f"{workdir.name} {secrets.token_hex(8)}"
      with files.write_errors(workdir / "search.lock"):
        file.write(name.encode())
    try:
      if url is None:
        storage = journal.JournalStorage(_Journal(path))
      else:  # A pool would leave connections open.
        options = {"poolclass": sqlalchemy.NullPool}
        storage = optuna.storages.RDBStorage(url, options)
      study = optuna.create_study(
        storage=storage, study_name=name, pruner=pruner, load_if_exists=True
      )
    except (OSError, UserError):
      raise
    except Exception as error:  # Of JSON, SQLAlchemy, or contradicting lines.
      where, remedy = path, "restore it, or name another --workdir"
      if url is not None:
        where = "config.search.storage"
        remedy = "must be an SQLAlchemy URL, as sqlite:////absolute/path.db"
      raise UserError(
        f"{where}: cannot be read ({type(error).__name__}); {remedy}"
      ) from None
  return Search(build, config, workdir, parsed, study)


def _fixed(search: Search, before: list[FrozenTrial]) -> Fields | None:
  """The values that the method prescribes for the trial after these.

  Returns:
    values by name, which are none if Optuna chooses them; None: the method has
    ended, or the coarse method waits for a loss.
  """
  method = search.config.search.method
  if method == "grid":
    rows = itertools.product(*map(space.choices, search.space.values()))
    row = next(itertools.islice(rows, len(before), None), None)
    return None if row is None else dict(zip(search.space, row, strict=True))
  if method == "coarse":
    if any(trial.state == TrialState.RUNNING for trial in before):
      return None
    losses = {
      t.params[space.LEARNING_RATE]: math.inf if t.value is None else t.value
      for t in before
    }
    rate = next_rate(losses)
    return None if rate is None else {space.LEARNING_RATE: rate}
  return {}


def next_rate(losses: dict[float, float]) -> float | None:
  """The next learning rate of the coarse method; None if it has ended.

  Args:
    losses: the loss of each rate tried; infinite where training diverged.
  """
  before = math.inf
  for rate in COARSE_RATES:
    if rate not in losses:
      return rate
    if losses[rate] >= before and before < math.inf:
      break
    before = losses[rate]
  best = min(COARSE_RATES, key=lambda rate: losses.get(rate, math.inf))
  if losses[best] == math.inf:
    return None
  near = (float(f"{rate:.3g}") for rate in (3 * best, best / 3))
  return next((rate for rate in near if rate not in losses), None)


def claim(search: Search) -> tuple[Trial, files.Lock] | None:
  """A trial for this process: one of a killed process, or a new one.

  Returns:
    the trial and its lock, to be held while it trains; None: no trial can
    begin now.
  """
  with alone(search.workdir):
    trials, settings = search.trials(), search.config.search
    for trial in trials:
      if trial.state == TrialState.RUNNING:
        lock = _lock(search.folder(trial.number))
        if lock is not None:  # The process that trained it has died.
          resumed = _take_over(search, trials, trial)
          if resumed is not None:
            return resumed, lock
          lock.file.close()
    if len(trials) >= settings.trials or not _set_sampler(search, trials):
      return None
    trial = search.study.ask()
    lock = _lock(search.folder(trial.number))
    assert lock is not None, "no other process knows the trial"
    trial.set_user_attr("attempts", (0, 1))
    return _draw(search, trial), lock


def _take_over(
  search: Search, trials: list[FrozenTrial], left: FrozenTrial
) -> Trial | None:
  """The trial of a process that died, to be resumed; None: it fails now."""
  trial = private.resumed_trial(search.study, left)
  reached, attempts = left.user_attrs.get("attempts", (0, 0))
  if len(left.intermediate_values) > reached:
    reached, attempts = len(left.intermediate_values), 0
  if attempts == _ATTEMPTS:
    trial.set_user_attr("error", f"killed {attempts} times in one place")
    search.study.tell(trial, state=TrialState.FAIL)
    return None
  _set_sampler(search, trials[: left.number])
  trial.set_user_attr("attempts", (reached, attempts + 1))
  return _draw(search, trial)


def release(trial: Trial):
  """Does not count an attempt at a trial that the machine prevented."""
  reached, attempts = trial.user_attrs["attempts"]
  trial.set_user_attr("attempts", (reached, attempts - 1))


def _lock(folder: Path) -> files.Lock | None:
  """Locks a trial; None if another process holds the lock."""
  folder.mkdir(parents=True, exist_ok=True)
  return files.lock(folder / "worker")


def _draw(search: Search, trial: Trial) -> Trial:
  """The trial, with a value for each field that is searched."""
  for name, distribution in search.space.items():
    match distribution:
      case distributions.CategoricalDistribution():
        trial.suggest_categorical(name, distribution.choices)
      case distributions.IntDistribution(low=low, high=high, log=log):
        trial.suggest_int(name, low, high, log=log)
      case distributions.FloatDistribution(low=low, high=high, log=log):
        trial.suggest_float(name, low, high, log=log)
  return trial


def _set_sampler(search: Search, before: list[FrozenTrial]) -> bool:
  """Sets the sampler of the trial after these, the same in each process.

  Returns:
    whether there is such a trial.
  """
  values = _fixed(search, before)
  if values is None:
    return False
  words = np.random.SeedSequence((search.config.seed, len(before)))
  seed, samplers = int(words.generate_state(1)[0]), optuna.samplers
  tpe = search.config.search.method == "tpe"
  sampler = (samplers.TPESampler if tpe else samplers.RandomSampler)(seed=seed)
  search.study.sampler = samplers.PartialFixedSampler(values, sampler)
  return True


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[IO[bytes]]:
  """Holds the lock of the search, to choose a trial or to write results.

  Yields:
    the file search.lock, which contains the name of the study.
  """
  lock = files.lock(workdir / "search.lock", wait=True)
  assert lock is not None, "lock() waits for it"
  with lock:
    lock.file.seek(0)
    yield lock.file


def train_trials(search: Search):
  """Trains trials until none can begin and none is running elsewhere.

  Raises:
    Interrupted: a signal was caught.
  """
  with signals.catch_signals() as caught:
    while True:
      if caught:
        raise Interrupted(caught[0])
      claimed = claim(search)
      if claimed is not None:
        trial, lock = claimed
        print(_line(search, trial.number), flush=True)
        with lock:
          run_trial(search, trial)
        print(_line(search, trial.number), flush=True)
      elif any(trial.state == TrialState.RUNNING for trial in search.trials()):
        time.sleep(_PAUSE)
      else:
        return


def _line(search: Search, number: int) -> str:
  """The number, state, loss and values of a trial."""
  trial = search.trials()[number]
  loss = [] if trial.value is None else [f"loss {trial.value:.4f}"]
  values = (
    f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
    for name, value in trial.params.items()
  )
  return visible(
    "  ".join([f"trial {number}", STATES[trial.state], *loss, *values])
  )


def run_trial(search: Search, trial: Trial):
  """Trains a trial and records its result in the study.

  A trial fails if its loss is not finite, its fields exclude each other, or
  the memory is too small for it.

  Raises:
    Interrupted: as training; the trial can be resumed.
    MachineError: the config is valid, and the trial can be resumed.
  """
  folder = search.folder(trial.number)
  reported = set(search.trials()[trial.number].intermediate_values)
  value, pruned = None, False

  def should_stop(row: dict[str, float]) -> bool:
    nonlocal pruned
    count = len(read_rows(folder / "metrics.csv"))
    if count not in reported:
      trial.report(row["validation_loss"], count)
    pruned = trial.should_prune()
    return pruned

  with (folder / "log.txt").open("a", encoding="utf-8") as log:
    try:
      config = space.trial_config(search.config, trial.params)
      check(config)
      with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        value = train.fit(search.build, config, folder, should_stop)["best"]
    except (Interrupted, MachineError):
      # The disk may still be full.
      with contextlib.suppress(OSError, MachineError):
        release(trial)
      raise
    except Exception as error:
      if not (devices.out_of_memory(error) or isinstance(error, UserError)):
        raise
      trial.set_user_attr("error", launch.user_message(error))
  state = TrialState.FAIL if value is None else TrialState.COMPLETE
  if pruned:
    state, value = TrialState.PRUNED, None
  for name, *more in (("seconds", "evaluation_seconds"), ("symbols",)):
    rows = read_rows(folder / "timing.csv", name, *more)
    total = sum(float(row[column]) for row in rows for column in (name, *more))
    trial.set_user_attr(name, total if more else int(total))
  with alone(search.workdir):
    search.study.tell(trial, value, state)
    search.write()
  if list(search.space) != [space.LEARNING_RATE]:
    jax.clear_caches()  # The programs of other trials differ.
