"""Processes that train the trials of a search."""

import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any, NamedTuple

import jax
from optuna.trial import Trial, TrialState

from seqrnn.errors import Interrupted, MachineError, UserError, visible
from seqrnn.runtime import compiled, devices, launch, signals
from seqrnn.searching import display, space, study
from seqrnn.searching.study import Search, alone
from seqrnn.settings import config as config_lib
from seqrnn.training import fit, programs
from seqrnn.training.history import read_rows

_TIMES = ("seconds", "evaluation_seconds", "symbols")
# Gives trials of equal programs one experiment; those that start from a run
# have one without vocabularies, too.
_share = programs.keep_last(
  lambda config, names: (programs.without_rate(config), names), count=2
)
_PAUSE = 0.2  # Seconds between two looks at the trials of other processes.
_STARTS = 8  # How often a worker is started, at most.


class _Place(NamedTuple):
  """A worker's place among the workers of this machine.

  Attributes:
    index: from 0.
    count: the number of workers.
    devices: the number of CPU devices of each.
  """

  index: int
  count: int
  devices: int


def train_trials(search: Search, show: Callable[[], None]):
  """Trains trials until none can begin and none is running elsewhere.

  Raises:
    Interrupted: a signal was caught.
  """
  search = search._replace(build=_share(search.build))
  with signals.catch_signals() as caught:
    while time.time() < search.deadline:
      if caught:
        raise Interrupted("", 128 + caught[0])
      claimed = study.claim(search)
      if claimed is not None:
        trial, lock = claimed
        with lock:
          show()
          run_trial(search, trial, show)
      elif any(trial.state == TrialState.RUNNING for trial in search.trials()):
        show()
        time.sleep(_PAUSE)
      else:
        return


def run_trial(search: Search, trial: Trial, show: Callable[[], None]):
  """Trains a trial and records its result in the study.

  A trial fails if its loss is not finite, its fields exclude each other, or
  the memory of a GPU or TPU is too small for it.

  Raises:
    Interrupted: as training; the trial can be resumed.
    MachineError: the config is valid, and the trial can be resumed.
  """
  folder = search.folder(trial.number)
  reported = set(search.trials()[trial.number].intermediate_values)
  pruned = False

  def should_stop(row: dict[str, Any]) -> bool:
    nonlocal pruned
    count = len(read_rows(folder / "metrics.csv"))
    if count not in reported:
      trial.report(row["validation_loss"], count)
    show()
    pruned = trial.should_prune()
    return pruned

  value = _train(search, trial, should_stop)
  state = TrialState.FAIL if value is None else TrialState.COMPLETE
  if pruned:
    state, value = TrialState.PRUNED, None
  timing = read_rows(folder / "timing.csv", *_TIMES)
  for name, columns in (("seconds", _TIMES[:2]), ("symbols", _TIMES[2:])):
    total = sum(float(row[column]) for row in timing for column in columns)
    trial.set_user_attr(name, int(total) if name == "symbols" else total)
  with alone(search.workdir):
    search.study.tell(trial, value, state)
    display.write_results(search)
  show()
  if list(search.space) != [space.LEARNING_RATE]:
    jax.clear_caches()  # The programs of other trials differ.
  compiled.prune()


def _train(
  search: Search, trial: Trial, should_stop: Callable[[dict[str, Any]], bool]
) -> float | None:
  """Trains a trial; its best validation loss, or None where it failed."""
  folder = search.folder(trial.number)
  with (folder / "log.txt").open("a", encoding="utf-8") as log:
    try:
      config = space.trial_config(search.config, trial.params)
      config_lib.check(config)
      with redirect_stdout(log), redirect_stderr(log):
        return fit.fit(search.build, config, folder, should_stop)["best"]
    except MachineError:
      with suppress(OSError, MachineError):  # The disk may still be full.
        study.release(trial)
      raise
    except UserError as error:
      trial.set_user_attr("error", str(error))
      return None
    except Exception as error:
      if not devices.out_of_memory(error):
        raise
      if jax.default_backend() != "cpu" and not isinstance(error, MemoryError):
        # No other process has the accelerator's memory: it is too small.
        trial.set_user_attr("error", launch.user_message(error))
        return None
      # It counts as an attempt: it may succeed when less memory is in use.
      raise MachineError(
        f"{folder}: out of memory; repeat the command to try it again"
      ) from None


def run_workers(search: Search, count: int, show: Callable[[], None]):
  """Starts workers, restarts those that are killed, and waits for all.

  Raises:
    Interrupted: a signal was caught, and all workers have ended.
    UserError: a worker found a user's mistake.
  """
  context = multiprocessing.get_context("spawn")
  failures = context.SimpleQueue()
  starts = [0] * count
  given = search.build, search.config, search.workdir, search.deadline

  def start(index: int) -> Any:
    starts[index] += 1
    place = _Place(index, count, jax.local_device_count())
    worker = context.Process(
      target=_worker, args=(place, failures, given), daemon=True
    )
    worker.start()
    return worker

  with signals.catch_signals() as caught:
    workers = [start(index) for index in range(count)]
    while any(worker.exitcode is None for worker in workers):
      alive = [w.sentinel for w in workers if w.exitcode is None]
      multiprocessing.connection.wait(alive, timeout=1)
      show()
      ending = bool(caught) or any(w.exitcode in (1, 2) for w in workers)
      for index, worker in enumerate(workers):
        if worker.exitcode is None and ending:
          worker.terminate()
          worker.join()
        elif worker.exitcode and not ending and starts[index] < _STARTS:
          workers[index] = start(index)
  if not failures.empty():
    raise UserError(failures.get())
  if caught:
    raise Interrupted("", 128 + caught[0])
  if any(worker.exitcode == 1 for worker in workers):  # A bug.
    raise Interrupted("a worker has ended for the reason above", 1)
  if all(worker.exitcode for worker in workers):
    raise Interrupted(
      f"each worker was killed {_STARTS} times; repeat the command to resume", 1
    )


def _worker(place: _Place, failures: Any, given: tuple):
  """Trains trials in a process that ends with its parent.

  Args:
    place: of the worker.
    failures: a queue for the message of a user's mistake.
    given: the arguments of `study.begin`.
  """
  launch.prepare()
  parent = multiprocessing.parent_process()
  assert parent is not None, "another process starts it"

  def follow():
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()
  jax.config.update("jax_num_cpu_devices", place.devices)
  status = 0
  try:
    _pin(place)  # Threads that JAX starts inherit it.
    devices.take_gpu(place.index, place.count)
    lines = devices.start()
    # The parent starts no GPU, so it cannot say whether JAX uses them.
    for line in lines if devices.gpus() else ():
      worker = f"worker {place.index + 1} of {place.count}"
      print(f"{worker}: {visible(line)}", file=sys.stderr)
    train_trials(study.begin(*given), lambda: None)
  except Interrupted as stop:
    status = stop.status
  except KeyboardInterrupt:
    status = 130
  except (UserError, OSError) as error:
    failures.put(str(error))
    status = 2
  launch.end(status)  # Otherwise JAX takes half a second to end.


def _pin(place: _Place):
  """Restricts this thread and its later ones to a share of the cores."""
  if not hasattr(os, "sched_setaffinity"):
    return
  cores = sorted(os.sched_getaffinity(0))
  share = max(len(cores) // place.count, 1)
  first = place.index * share % len(cores)
  os.sched_setaffinity(0, cores[first : first + share])
