"""search: many runs of a config, some of whose fields Optuna chooses.

A trial is a run in a workdir of its own, trials/0007, that every mode can use.
The workdir of the search holds:

  search.json   its config       trials.log   Optuna's journal of all trials
  trials.csv    the trials       best.json    the config of the best one

Processes share a search by these files alone, on one machine or several. Each
holds a lock on its trial, which the system frees when it dies: then another
one takes the trial up from its checkpoint.
"""

import copy
import csv
import fcntl
import itertools
import math
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import (
  contextmanager,
  redirect_stderr,
  redirect_stdout,
  suppress,
)
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from seqrnn import config as configs
from seqrnn import files, train
from seqrnn.config import Config
from seqrnn.errors import Interrupted, UserError
from seqrnn.experiment import Experiment
from seqrnn.history import read_rows

try:
  import optuna
  from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
  )
  from optuna.storages import journal
  from optuna.trial import FrozenTrial, Trial, TrialState

  metadata.version("scikit-learn")  # By which Optuna finds importances.
except ImportError:
  raise UserError(
    "--mode=search needs the packages optuna and scikit-learn: pip install"
    " 'seqrnn[search]'"
  ) from None

# Of Optuna's distributions, by the names of the fields, or by _REST and a name
# where what is left to 1 is drawn.
Space = dict[str, Any]
_REST = "1 - "
# What must not change within a search.
_FIXED = (
  *configs.TRAINING,
  "search.method",
  "search.coarse_size",
  "search.pruning",
  "search.space.",
)
_LEARNING_RATE = "optimizer.learning_rate"
_LADDER = [float(f"1e-{power}") for power in range(8)]  # Of the coarse method.
_FORMS = (
  "must be log_uniform(low, high), uniform(low, high), integer(low, high),"
  " one_minus_log_uniform(low, high), choice(a, b, ...) or grid(a, b, ...)"
)
_ATTEMPTS = 3  # At a trial whose process was killed.
_STARTS = 8  # Of a worker that was killed.
_SHOWN = 12  # Rows of the table.
_STATES = {
  TrialState.COMPLETE: "finished",
  TrialState.PRUNED: "pruned",
  TrialState.FAIL: "failed",
  TrialState.RUNNING: "running",
  TrialState.WAITING: "waiting",
}


class Search(NamedTuple):
  """What stays the same from trial to trial.

  Attributes:
    build: config, vocabularies or None -> Experiment.
    config: that all trials share but for what is searched.
    workdir: of the search.
    space: what is searched, by the names of the fields.
    study: Optuna's.
    deadline: when no trial may begin any more, as time.time().
  """

  build: Callable[..., Experiment]
  config: Config
  workdir: Path
  space: Space
  study: optuna.Study
  deadline: float

  def folder(self, number: int) -> Path:
    """The workdir of a trial."""
    return self.workdir / "trials" / f"{number:04}"

  def trials(self) -> list[FrozenTrial]:
    """All trials, as they are now."""
    return self.study.get_trials(deepcopy=False)


def parse_space(config: Config) -> Space:
  """What `config.search.space` says.

  Raises:
    UserError: a text that is none of the forms, a value that its field cannot
      have, or a form that the method cannot use.
  """
  texts = configs.flat(config.search.space)
  space, method = {}, config.search.method
  for name, text in texts.items():
    if text is None:
      continue
    rest, found = _parse(config, name, text)
    space[rest + name] = found
    where = f"config.search.space.{name}={text!r}"
    if method == "grid" and not isinstance(found, CategoricalDistribution):
      raise UserError(f"{where}: search.method='grid' needs grid(a, b, ...)")
    if method == "coarse" and name != _LEARNING_RATE:
      raise UserError(
        f"{where}: search.method='coarse' searches {_LEARNING_RATE} alone"
      )
  if not space and method != "coarse":
    raise UserError(
      "config.search.space: is empty; name what to search, as in"
      f" --config.search.space.{_LEARNING_RATE}='log_uniform(1e-4, 1e-1)'"
    )
  if method == "coarse":
    space = {_LEARNING_RATE: FloatDistribution(1e-8, 3.0, log=True)}
  return space


def _parse(config: Config, name: str, text: str) -> tuple[str, Any]:
  """_REST or nothing, and the distribution."""

  def refuse(rule: str) -> NoReturn:
    raise UserError(f"config.search.space.{name}={text!r}: {rule}")

  if name == "train.cpu_devices":
    refuse("a process has the same for all its trials")
  match = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", text, re.DOTALL)
  kinds = {
    "uniform": [float],
    "integer": [int],
    "log_uniform": [int, float],
    "one_minus_log_uniform": [float],
  }
  if not match or match[1] not in (*kinds, "choice", "grid"):
    refuse(_FORMS)
  form = match[1]
  holds, rule = configs.RULES[name]
  blank = {name: None if holds(None) else ...}  # As where the default is none.
  trial = copy.deepcopy(config)
  values = []
  for part in match[2].split(","):
    try:
      configs.override(trial, blank, name, part.strip())
    except UserError as error:
      refuse(f"of which {error}")
    value = configs.flat(trial)[name]
    values.append(value)
    if form == "one_minus_log_uniform" and isinstance(value, float):
      value = 1 - value
    if not holds(value):
      refuse(f"of which {value!r} {rule}")
  if form in ("choice", "grid"):
    return "", CategoricalDistribution(values)
  group, key = configs.locate(config, name)
  kind = group.get_type(key)
  if kind not in kinds[form]:
    others = "choice(a, b, ...) or grid(a, b, ...)"
    other = {int: "integer(low, high)", float: "uniform(low, high)"}.get(kind)
    refuse(f"the field has {other or others}")
  if len(values) != 2 or None in values or not values[0] < values[1]:
    refuse(f"must be {form}(low, high), low below high")
  log = form.endswith("log_uniform")
  if log and values[0] <= 0:
    refuse("low must be above 0")
  if kind is int:
    return "", IntDistribution(*values, log=log)
  rest = _REST if form.startswith("one_minus") else ""
  return rest, FloatDistribution(*values, log=log)


def next_rate(losses: dict[float, float]) -> float | None:
  """The learning rate to try next by the coarse method; None: all are tried.

  Args:
    losses: of the rates tried so far; infinite where training diverged.
  """
  before = math.inf
  for rate in _LADDER:
    if rate not in losses:
      return rate
    if losses[rate] >= before and before < math.inf:
      break
    before = losses[rate]
  best = min(_LADDER, key=lambda rate: losses.get(rate, math.inf))
  if losses[best] == math.inf:
    return None
  for rate in (float(f"{near:.3g}") for near in (3 * best, best / 3)):
    if rate not in losses:
      return rate
  return None


def propose(search: Search, begun: list[FrozenTrial]) -> dict[str, Any] | None:
  """What the next trial must have; None: there is none to begin now."""
  settings, space = search.config.search, search.space
  symbols = sum(trial.user_attrs.get("symbols", 0) for trial in begun)
  if len(begun) >= settings.trials or symbols >= (settings.symbols or math.inf):
    return None
  if settings.method == "grid":
    rows = itertools.product(*(space[name].choices for name in space))
    row = next(itertools.islice(rows, len(begun), None), None)
    return None if row is None else dict(zip(space, row, strict=True))
  if settings.method == "coarse":
    if any(trial.state == TrialState.RUNNING for trial in begun):
      return None
    rate = next_rate(
      {
        trial.params[_LEARNING_RATE]: math.inf
        if trial.value is None
        else trial.value
        for trial in begun
      }
    )
    return None if rate is None else {_LEARNING_RATE: rate}
  return {}


def _open(config: Config, workdir: Path) -> optuna.Study:
  """The study of a workdir, made where there is none.

  Raises:
    UserError: the database cannot be opened.
  """
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  url = config.search.storage
  pruning = config.search.pruning
  if config.search.method == "coarse":
    pruning = "none"  # It compares whole runs.
  pruner = {
    "median": optuna.pruners.MedianPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "none": optuna.pruners.NopPruner,
  }[pruning]()
  try:
    if url is None:
      path = str(workdir / "trials.log")
      lock = journal.JournalFileOpenLock(path)  # Network file systems know it.
      storage = optuna.storages.JournalStorage(
        journal.JournalFileBackend(path, lock)
      )
    else:
      storage = optuna.storages.RDBStorage(url)
    return optuna.create_study(
      storage=storage,
      study_name=workdir.as_posix(),
      pruner=pruner,
      load_if_exists=True,
    )
  except Exception as error:
    if url is None:
      raise
    raise UserError(  # The URL may hold a password.
      f"config.search.storage: cannot be opened ({type(error).__name__}); an"
      " SQLAlchemy URL, as sqlite:////absolute/path.db"
    ) from None


def _sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
  """What chooses trial `number`, the same whatever process asks."""
  words = np.random.SeedSequence((search.config.seed, number))
  seed = int(words.generate_state(1)[0])
  if search.config.search.method == "tpe":
    return optuna.samplers.TPESampler(seed=seed)
  return optuna.samplers.RandomSampler(seed=seed)


@contextmanager
def _alone(workdir: Path) -> Iterator[None]:
  """One process at a time chooses a trial, or writes what was found."""
  with (workdir / "search.lock").open("ab") as file:
    with suppress(OSError):  # Some network file systems have no locks.
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def claim(search: Search) -> tuple[Trial, Any] | None:
  """A trial of this process's own: one that a killed one left, or a new one.

  Returns:
    the trial, and the file whose lock is held until it is closed; None: there
    is none to begin now.
  """
  with _alone(search.workdir):
    trials = search.trials()
    for left in trials:
      if left.state != TrialState.RUNNING:
        continue
      lock = _lock(search.folder(left.number))
      if lock is None:
        continue
      attempts = left.user_attrs.get("attempts", 0)
      if attempts >= _ATTEMPTS:
        trial = Trial(search.study, left._trial_id)
        trial.set_user_attr("error", f"killed {attempts} times")
        search.study.tell(trial, state=TrialState.FAIL)
        lock.close()
        continue
      search.study.sampler = _sampler(search, left.number)
      return _draw(search, Trial(search.study, left._trial_id), attempts), lock
    waiting = [t for t in trials if t.state == TrialState.WAITING]
    number = len(trials)
    if waiting:  # A process was killed just after this line.
      number = waiting[0].number
    elif (fixed := propose(search, trials)) is None:
      return None
    else:
      search.study.enqueue_trial(fixed)
    search.study.sampler = _sampler(search, number)
    trial = search.study.ask()
    lock = _lock(search.folder(trial.number))
    assert lock is not None, "no other process knows of it"
    return _draw(search, trial, 0), lock


def _lock(folder: Path) -> Any:
  """The file by which a process holds a trial; None: another one does."""
  folder.mkdir(parents=True, exist_ok=True)
  file = (folder / "worker").open("ab")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  return file


def _draw(search: Search, trial: Trial, attempts: int) -> Trial:
  """The trial, with a value for all that is searched."""
  for name, found in search.space.items():
    if isinstance(found, CategoricalDistribution):
      trial.suggest_categorical(name, found.choices)
    elif isinstance(found, IntDistribution):
      trial.suggest_int(name, found.low, found.high, log=found.log)
    elif isinstance(found, FloatDistribution):
      trial.suggest_float(name, found.low, found.high, log=found.log)
  trial.set_user_attr("attempts", attempts + 1)
  return trial


def trial_config(config: Config, values: dict[str, Any]) -> Config:
  """The config of a trial."""
  config = copy.deepcopy(config)
  model, search = config.model, config.search
  if "model.hidden_size" in values:
    model.parameters = None  # The searched one takes its place.
  for name, value in values.items():
    if name.startswith(_REST):
      name, value = name.removeprefix(_REST), 1 - value
    group, key = configs.locate(config, name)
    group[key] = value
  if search.method == "coarse" and not model.tied:
    model.parameters = None
    model.hidden_size = min(model.hidden_size, search.coarse_size)
  for name in configs.flat(search.space):  # The trial itself searches nothing.
    group, key = configs.locate(search.space, name)
    group[key] = None
  search.storage = search.workers = None
  return config


def run_trial(search: Search, trial: Trial, show: Callable[[], None]):
  """Trains a trial and tells the study.

  A loss that is not finite, or fields that do not go together, make it a
  failed one.

  Raises:
    Interrupted: as train.run; the trial goes on later.
  """
  folder = search.folder(trial.number)
  told = set(search.trials()[trial.number].intermediate_values)
  pruned = False
  state, value = TrialState.FAIL, None

  def watch(row: dict[str, Any]) -> bool:
    nonlocal pruned
    count = len(read_rows(folder / "metrics.csv"))
    if count not in told:
      trial.report(row["validation_loss"], count)
    show()
    pruned = trial.should_prune()
    return pruned

  with (folder / "log.txt").open("a", encoding="utf-8") as log:
    try:
      config = trial_config(search.config, trial.params)
      configs.check(config)
      with redirect_stdout(log), redirect_stderr(log):
        value = train.run(search.build, config, folder, watch)["best"]
      state = TrialState.COMPLETE
    except Exception as error:
      own = isinstance(error, UserError | MemoryError)
      if not own and "Out of memory" not in str(error):
        raise
      trial.set_user_attr("error", str(error))
  if pruned:
    state, value = TrialState.PRUNED, None
  timing = read_rows(folder / "timing.csv")
  seconds = sum(
    float(row["seconds"]) + float(row["evaluation_seconds"]) for row in timing
  )
  trial.set_user_attr("seconds", seconds)
  trial.set_user_attr("symbols", sum(int(row["symbols"]) for row in timing))
  with _alone(search.workdir):
    search.study.tell(trial, value, state)
    write(search)
  show()
  jax.clear_caches()  # Other trials have other programs.


def work(search: Search, show: Callable[[], None]):
  """Trains trials until there is none to begin and none that may be left.

  Raises:
    Interrupted: a signal was caught.
  """
  with train.signals() as caught:
    while time.time() < search.deadline:
      if caught:
        raise Interrupted("", 128 + caught[0])
      claimed = claim(search)
      if claimed is not None:
        trial, lock = claimed
        with lock:
          run_trial(search, trial, show)
      elif any(trial.state == TrialState.RUNNING for trial in search.trials()):
        show()
        time.sleep(1)
      else:
        return


def best_trial(search: Search) -> FrozenTrial | None:
  """The finished trial of the lowest loss."""
  done = [t for t in search.trials() if t.state == TrialState.COMPLETE]
  return min(done, key=_rank, default=None)


def write(search: Search):
  """Writes trials.csv and best.json."""
  with files.written(search.workdir / "trials.csv") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
      ["trial", "state", "loss", "evaluations", "symbols", "seconds"]
      + [*search.space, "error"]
    )
    for trial in search.trials():
      found = trial.user_attrs
      writer.writerow(
        [trial.number, _STATES[trial.state], trial.value]
        + [len(trial.intermediate_values), found.get("symbols")]
        + [found.get("seconds")]
        + [trial.params.get(name) for name in search.space]
        + [found.get("error")]
      )
  best = best_trial(search)
  if best is not None:
    config = (search.folder(best.number) / "config.json").read_bytes()
    with files.written(search.workdir / "best.json", "wb") as file:
      file.write(config)


class Board:
  """What a person sees: a live table, or a line a trial without a terminal."""

  def __init__(self, search: Search):
    self._search = search
    self._console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    self._live = Live(
      console=self._console,
      auto_refresh=False,
      transient=True,
      redirect_stdout=False,
      redirect_stderr=False,
    )
    self._told = {t.number for t in search.trials() if t.state.is_finished()}

  def __enter__(self) -> "Board":
    if self._console.is_terminal:
      self._live.start()
    return self

  def __exit__(self, *_):
    self._live.stop()

  def show(self):
    """Brings it up to date."""
    if self._console.is_terminal:
      self._live.update(self.table(), refresh=True)
      return
    for trial in self._search.trials():
      if trial.state.is_finished() and trial.number not in self._told:
        self._told.add(trial.number)
        values = "  ".join(
          f"{name}={_short(value)}" for name, value in trial.params.items()
        )
        loss = "" if trial.value is None else f"  {trial.value:.4f} nats"
        state = _STATES[trial.state]
        self._console.print(
          f"trial {trial.number}  {state}{loss}  {values}", markup=False
        )

  def end(self):
    """Prints the table for good."""
    self._console.print(self.table())

  def table(self) -> Table:
    """The running trials and the best ones."""
    search, trials = self._search, self._search.trials()
    done = [trial for trial in trials if trial.state.is_finished()]
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    title = f"{search.workdir}: {len(done)} trials of at most {_total(search)}"
    best = best_trial(search)
    if best is not None:
      title += f", best {best.value:.4f} nats in trial {best.number}"
    seconds = [trial.user_attrs.get("seconds", 0) for trial in done]
    left = _total(search) - len(done)
    if running and done:
      wait = left * sum(seconds) / len(done) / len(running)
      wait = min(wait, search.deadline - time.time())
      title += f", about {max(wait, 0) / 60:.0f} min left"
    table = Table(title=title)
    for name in ("trial", "state", "loss", "evaluations", *search.space):
      table.add_column(name, justify="right", overflow="fold")
    ranked = sorted(done, key=_rank)[: max(_SHOWN - len(running), 3)]
    for trial in running + ranked:
      reported = trial.intermediate_values
      loss = trial.value
      if loss is None and reported:
        loss = min(reported.values())
      table.add_row(
        str(trial.number),
        _STATES[trial.state],
        "" if loss is None else f"{loss:.4f}",
        str(len(reported)),
        *(_short(trial.params.get(name)) for name in search.space),
        style="bold" if best and trial.number == best.number else None,
      )
    return table


def _rank(trial: FrozenTrial) -> tuple[int, float]:
  order = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
  value = math.inf if trial.value is None else trial.value
  return order.index(trial.state), value


def _short(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def _total(search: Search) -> int:
  """How many trials there will be, at most."""
  settings = search.config.search
  most = settings.trials
  if settings.method == "grid":
    most = math.prod(len(found.choices) for found in search.space.values())
  elif settings.method == "coarse":
    most = len(_LADDER) + 2
  return min(settings.trials, most)


def _worker(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  deadline: float,
  devices: int,
  place: int,
  count: int,
  failures: Any,
):
  """A process that trains trials; it ends with the one that started it."""
  parent = multiprocessing.parent_process()
  assert parent is not None, "it was started by one"

  def follow():
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()
  jax.config.update("jax_num_cpu_devices", devices)
  _pin(place, count)
  try:
    space = parse_space(config)
    study = _open(config, workdir)
    work(Search(build, config, workdir, space, study, deadline), lambda: None)
  except Interrupted as stop:
    sys.exit(stop.status)
  except KeyboardInterrupt:
    sys.exit(130)
  except (UserError, OSError) as error:
    failures.put(str(error))
    sys.exit(2)


def oversee(search: Search, count: int, show: Callable[[], None]):
  """Starts workers, and one anew where it was killed, until all have ended.

  Raises:
    Interrupted: a signal was caught, and all have ended.
    UserError: one of them met a mistake.
  """
  context = multiprocessing.get_context("spawn")
  failures = context.SimpleQueue()
  starts = [0] * count
  devices = jax.local_device_count()

  def start(place: int) -> Any:
    starts[place] += 1
    worker = context.Process(
      target=_worker,
      args=(*search[:3], search.deadline, devices, place, count, failures),
      daemon=True,
    )
    worker.start()
    return worker

  with train.signals() as caught:
    workers = [start(place) for place in range(count)]
    while any(worker.exitcode is None for worker in workers):
      alive = [w.sentinel for w in workers if w.exitcode is None]
      multiprocessing.connection.wait(alive, timeout=1)
      show()
      ending = bool(caught) or any(w.exitcode in (1, 2) for w in workers)
      for place, worker in enumerate(workers):
        if worker.exitcode is None and ending:
          worker.terminate()
          worker.join()
        elif worker.exitcode and not ending and starts[place] < _STARTS:
          workers[place] = start(place)
  if not failures.empty():
    raise UserError(failures.get())
  if caught:
    raise Interrupted("", 128 + caught[0])
  if any(worker.exitcode == 1 for worker in workers):  # A bug of ours.
    raise Interrupted("a worker has ended for the reason above", 1)


def _pin(place: int, count: int):
  """Keeps this process on its share of the cores, where they can be told.

  JAX is started before: how sums are rounded depends on the number of its
  threads, which is that of the cores it sees, and a trial must be what its
  config gives without a search.

  Args:
    place: of the worker, from 0.
    count: of workers.
  """
  jax.devices()
  if sys.platform != "linux":
    return
  cores = sorted(os.sched_getaffinity(0))
  share = max(len(cores) // count, 1)
  first = place * share % len(cores)
  for thread in os.listdir("/proc/self/task"):
    with suppress(ProcessLookupError):  # It has ended.
      os.sched_setaffinity(int(thread), cores[first : first + share])


def _begin(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Writes search.json, or refuses a workdir that holds another search.

  Raises:
    UserError: a field differs, or no run of this config could begin.
  """
  record = workdir / "search.json"
  if record.exists():
    old = configs.flat(config)  # What it is too old to know has not changed.
    for name in configs.flat(config.search.space):
      old[f"search.space.{name}"] = None  # Those it leaves out were not chosen.
    old |= configs.flat(configs.read_json(record))
    found = configs.differences(old, config, _FIXED)
    if found:
      raise UserError(
        f"{workdir}: holds another search, {'; '.join(found)}; name another"
        " --workdir"
      )
    return
  build(config, None)  # A corpus that is missing is better known now.
  workdir.mkdir(parents=True, exist_ok=True)
  kept = copy.deepcopy(config)
  kept.search.storage = kept.search.workers = None  # Of this machine alone.
  configs.save(kept, record)


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, Any]:
  """Searches, or goes on searching, until a limit of `config.search`.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the search.
    workdir: where its files are.

  Returns:
    what was chosen for the best trial, by the names of the fields.

  Raises:
    UserError: the space is wrong, the workdir holds another search, or no trial
      has finished.
    Interrupted: SIGINT or SIGTERM came.
  """
  settings = config.search
  space = parse_space(config)
  _begin(build, config, workdir)
  study = _open(config, workdir)
  deadline = time.time() + 60 * (settings.minutes or math.inf)
  search = Search(build, config, workdir, space, study, deadline)
  workers = settings.workers or 1
  if jax.default_backend() != "cpu":
    workers = 1  # A second process would find no memory on it.
  board = Board(search)
  try:
    with board:
      if workers == 1:
        work(search, board.show)
      else:
        oversee(search, workers, board.show)
  except Interrupted as stop:
    name = signal.Signals(stop.status - 128).name if stop.status > 128 else ""
    board.end()
    raise Interrupted(
      str(stop) if not name else f"stopped by {name}; the same command goes on",
      stop.status,
    ) from None
  from seqrnn import pictures  # It takes a second to import.

  with _alone(workdir):
    write(search)
    drawn = pictures.draw(search.trials(), space, workdir, search.folder)
  board.end()
  best = best_trial(search)
  if best is None:
    errors = [t.user_attrs.get("error") for t in search.trials()]
    raise UserError(
      f"{workdir}: no trial has finished; the last one: {(errors or [''])[-1]}"
    )
  state = "finished" if time.time() < deadline else "the minutes are over"
  print(
    f"{workdir}: {state}; best validation loss {best.value:.4f} nats in trial"
    f" {best.number}; pictures: {', '.join(drawn)}\n"
    f"python run.py --config={workdir / 'best.json'}"
  )
  return best.params
