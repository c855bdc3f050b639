"""The trials of a search: Optuna's study, and which process trains which."""

import itertools
import json
import math
import os
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import (
  CategoricalDistribution,
  FloatDistribution,
  IntDistribution,
)
from optuna.storages import journal
from optuna.trial import FrozenTrial, Trial, TrialState

from seqrnn.errors import MachineError, UserError
from seqrnn.experiment import Experiment
from seqrnn.runtime import files
from seqrnn.searching import space
from seqrnn.settings.config import Config

COARSE_RATES = [float(f"1e-{power}") for power in range(8)]
_SUM = "crc32"  # The key of a journal line's checksum.
_NAME_LIMIT = 4096  # Bytes of a study's name.
_ATTEMPTS = 3  # To resume from one evaluation, by processes that died.


class Search(NamedTuple):
  """What all trials share.

  Attributes:
    build: config, vocabularies or None -> Experiment.
    config: of the search; a trial replaces the fields that are searched.
    workdir: of the search.
    space: the fields that are searched, and their distributions.
    study: Optuna's.
    deadline: the time.time() from which no trial begins.
  """

  build: Callable[..., Experiment]
  config: Config
  workdir: Path
  space: space.Space
  study: optuna.Study
  deadline: float

  def folder(self, number: int) -> Path:
    """The workdir of a trial."""
    return self.workdir / "trials" / f"{number:04}"

  def trials(self) -> list[FrozenTrial]:
    """All trials in their present state."""
    return self.study.get_trials(deepcopy=False)

  def best(self) -> FrozenTrial | None:
    """The finished trial of the lowest loss."""
    done = [t for t in self.trials() if t.state == TrialState.COMPLETE]
    return min(done, key=rank, default=None)

  def most(self) -> int:
    """The largest number of trials that the search can have."""
    settings = self.config.search
    most = settings.trials
    if settings.method == "grid":
      most = math.prod(len(found.choices) for found in self.space.values())
    elif settings.method == "coarse":
      most = len(COARSE_RATES) + 2
    return min(settings.trials, most)


def rank(trial: FrozenTrial) -> tuple[int, float]:
  """A key to sort trials by: finished, pruned, failed; then by loss."""
  order = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
  value = math.inf if trial.value is None else trial.value
  return order.index(trial.state), value


class _Journal(journal.JournalFileBackend):
  """Optuna's, with a checksum in each line and errors of one line."""

  def __init__(self, path: Path):
    super().__init__(str(path), _Lock(path))
    self._path = path

  def append_logs(self, logs: list[dict[str, Any]]):
    with files.write_errors(self._path):
      super().append_logs([{**log, _SUM: _checksum(log)} for log in logs])

  def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
    try:
      for log in super().read_logs(log_number_from):
        if log.pop(_SUM, None) != _checksum(log):
          raise ValueError(f"a line is not what its {_SUM} records")
        yield log
    except (ValueError, AttributeError, TypeError) as error:
      # A line is not JSON, not UTF-8 or not an object, or was changed.
      raise _damaged(self._path, error) from None


def _checksum(log: dict[str, Any]) -> int:
  """The CRC-32 of a journal's line, whatever blanks it is written with."""
  return zlib.crc32(json.dumps(log).encode())


def _damaged(path: Path, error: Exception) -> MachineError:
  return MachineError(
    f"{path}: is damaged ({type(error).__name__}: {error}); restore it, or name"
    " another --workdir"
  )


class _Lock(journal.JournalFileOpenLock):  # Works on network file systems.
  """The lock for writing to the journal.

  It removes an incomplete last line, which a process leaves on a full disk: a
  line behind it would make the journal unreadable.
  """

  def __init__(self, path: Path):
    super().__init__(str(path))
    self._path = path

  def acquire(self) -> bool:
    held = super().acquire()
    with self._path.open("rb+") as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(size - 1, 0))
      if file.read() not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    return held


def begin(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  deadline: float,
) -> Search:
  """Opens the search of a workdir; creates its study if there is none.

  Raises:
    UserError: the space is wrong, the database cannot be opened, or the trials
      are stored elsewhere.
  """
  found = space.parse(config)
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  url, path = config.search.storage, workdir / "trials.log"
  if (workdir / "trials").exists() and path.exists() != (url is None):
    place = path if path.exists() else "a database"
    raise UserError(  # The URL may hold a password.
      f"config.search.storage: {workdir} has its trials in {place}; give the"
      " same storage as when the search began"
    )
  pruning = config.search.pruning
  if config.search.method == "coarse":
    pruning = "none"  # The coarse method compares complete runs.
  pruner = {
    "median": optuna.pruners.MedianPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "none": optuna.pruners.NopPruner,
  }[pruning]()
  try:
    # Two processes must not create the tables of a database at once.
    with alone(workdir) as file:
      name = file.read(_NAME_LIMIT).decode("utf-8", "replace")
      if not name:
        # A database may hold several studies. The name contains no path:
        # machines may mount the workdir in different places.
        name = f"{workdir.name} {secrets.token_hex(8)}"
        if (workdir / "trials").exists():  # Of a version without such names.
          name = workdir.as_posix()
        with files.write_errors(workdir / "search.lock"):
          file.write(name.encode())
      if url is None:
        storage = optuna.storages.JournalStorage(_Journal(path))
      else:
        storage = optuna.storages.RDBStorage(url)
      study = optuna.create_study(
        storage=storage, study_name=name, pruner=pruner, load_if_exists=True
      )
  except UserError:
    raise
  except Exception as error:
    if url is None and isinstance(error, OSError):
      raise
    if url is None:  # The lines of the journal contradict each other.
      raise _damaged(path, error) from None
    raise UserError(
      f"config.search.storage: cannot be opened ({type(error).__name__}); must"
      " be an SQLAlchemy URL, as sqlite:////absolute/path.db"
    ) from None
  return Search(build, config, workdir, found, study, deadline)


def propose(search: Search, begun: list[FrozenTrial]) -> dict[str, Any] | None:
  """The fields that the next trial must have; None: none can begin now."""
  settings = search.config.search
  symbols = sum(trial.user_attrs.get("symbols", 0) for trial in begun)
  if len(begun) >= search.most() or symbols >= (settings.symbols or math.inf):
    return None
  if settings.method == "grid":
    choices = (found.choices for found in search.space.values())
    rows = itertools.product(*choices)
    row = next(itertools.islice(rows, len(begun), None))
    return dict(zip(search.space, row, strict=True))
  if settings.method == "coarse":
    if any(trial.state == TrialState.RUNNING for trial in begun):
      return None
    rate = next_rate(
      {
        trial.params[space.LEARNING_RATE]: math.inf
        if trial.value is None
        else trial.value
        for trial in begun
      }
    )
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
  for rate in (float(f"{near:.3g}") for near in (3 * best, best / 3)):
    if rate not in losses:
      return rate
  return None


def claim(search: Search) -> tuple[Trial, files.Lock] | None:
  """A trial for this process: one of a killed process, or a new one.

  Returns:
    the trial and its lock, to be held while it trains; None: no trial can
    begin now.
  """
  with alone(search.workdir):
    trials = search.trials()
    for trial in trials:
      if trial.state == TrialState.RUNNING:
        lock = _lock(search.folder(trial.number))
        if lock is not None:  # The process that trained it has died.
          taken = _take_over(search, trial)
          if taken is not None:
            return taken, lock
          lock.close()
    waiting = [t for t in trials if t.state == TrialState.WAITING]
    number = len(trials)
    if waiting:  # A process died between enqueue_trial and ask.
      number = waiting[0].number
    elif (fixed := propose(search, trials)) is None:
      return None
    else:
      search.study.enqueue_trial(fixed)
    search.study.sampler = _sampler(search, number)
    trial = search.study.ask()
    lock = _lock(search.folder(trial.number))
    assert lock is not None, "no other process knows the trial"
    trial.set_user_attr("attempts", (0, 1))
    return _draw(search, trial), lock


def _take_over(search: Search, left: FrozenTrial) -> Trial | None:
  """The trial of a process that died, to be resumed; None: it fails now."""
  trial = Trial(search.study, left._trial_id)
  reached, attempts = left.user_attrs.get("attempts", (0, 0))
  if len(left.intermediate_values) > reached:
    reached, attempts = len(left.intermediate_values), 0
  if attempts == _ATTEMPTS:
    trial.set_user_attr("error", f"killed {attempts} times in one place")
    search.study.tell(trial, state=TrialState.FAIL)
    return None
  search.study.sampler = _sampler(search, left.number)
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
  for name, found in search.space.items():
    if isinstance(found, CategoricalDistribution):
      trial.suggest_categorical(name, found.choices)
    elif isinstance(found, IntDistribution):
      trial.suggest_int(name, found.low, found.high, log=found.log)
    elif isinstance(found, FloatDistribution):
      trial.suggest_float(name, found.low, found.high, log=found.log)
  return trial


def _sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
  """The sampler of trial `number`, the same in each process."""
  words = np.random.SeedSequence((search.config.seed, number))
  seed = int(words.generate_state(1)[0])
  if search.config.search.method == "tpe":
    return optuna.samplers.TPESampler(seed=seed)
  return optuna.samplers.RandomSampler(seed=seed)


@contextmanager
def alone(workdir: Path) -> Iterator[IO[bytes]]:
  """Holds the lock of the search, to choose a trial or to write results.

  Yields:
    the file search.lock, which contains the name of the study.
  """
  held = files.lock(workdir / "search.lock", wait=True)
  assert held is not None, "lock() waits for it"
  with held:
    held.file.seek(0)
    yield held.file
