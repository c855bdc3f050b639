"""Processes that train the trials of a search."""

import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import jax
from optuna.trial import Trial, TrialState

from seqrnn import config as configs
from seqrnn.config import Config
from seqrnn.errors import Interrupted, MachineError, UserError
from seqrnn.experiment import Experiment
from seqrnn.runtime import compiled, signals
from seqrnn.searching import board, space, study
from seqrnn.searching.study import Search, alone
from seqrnn.training import fit
from seqrnn.training.history import read_rows

_TIMES = ("seconds", "evaluation_seconds", "symbols")
_STARTS = 8  # Of a worker that was killed.


def work(search: Search, show: Callable[[], None]):
  """Trains trials until there is none to begin and none that may be left.

  Raises:
    Interrupted: a signal was caught.
  """
  with signals.catch_signals() as caught:
    while time.time() < search.deadline:
      if caught:
        raise Interrupted("", 128 + caught[0])
      claimed = study.claim(search)
      if claimed is not None:
        trial, lock = claimed
        with lock:
          run_trial(search, trial, show)
      elif any(trial.state == TrialState.RUNNING for trial in search.trials()):
        show()
        time.sleep(1)
      else:
        return


def run_trial(search: Search, trial: Trial, show: Callable[[], None]):
  """Trains a trial and tells the study.

  A loss that is not finite, or fields that do not go together, make it a
  failed one.

  Raises:
    Interrupted: as train.run; the trial goes on later.
    MachineError: no field is wrong, and it goes on later, too.
  """
  folder = search.folder(trial.number)
  told = set(search.trials()[trial.number].intermediate_values)
  pruned = False
  state, value = TrialState.FAIL, None

  def should_stop(row: dict[str, Any]) -> bool:
    nonlocal pruned
    count = len(read_rows(folder / "metrics.csv"))
    if count not in told:
      trial.report(row["validation_loss"], count)
    show()
    pruned = trial.should_prune()
    return pruned

  with (folder / "log.txt").open("a", encoding="utf-8") as log:
    try:
      config = space.trial_config(search.config, trial.params)
      configs.check(config)
      with redirect_stdout(log), redirect_stderr(log):
        value = fit.fit(search.build, config, folder, should_stop)["best"]
      state = TrialState.COMPLETE
    except MachineError:
      with suppress(OSError, MachineError):  # As long as the disk is full.
        study.release(trial)
      raise
    except UserError as error:
      trial.set_user_attr("error", str(error))
    except Exception as error:
      if not isinstance(error, MemoryError) and not _no_memory(error):
        raise
      # It counts as an attempt: with less memory in use it may go through.
      raise MachineError(
        f"{folder}: out of memory; the same command tries it again"
      ) from None
  if pruned:
    state, value = TrialState.PRUNED, None
  timing = read_rows(folder / "timing.csv", *_TIMES)
  seconds = sum(
    float(row["seconds"]) + float(row["evaluation_seconds"]) for row in timing
  )
  trial.set_user_attr("seconds", seconds)
  trial.set_user_attr(
    "symbols", sum(int(float(row["symbols"])) for row in timing)
  )
  with alone(search.workdir):
    search.study.tell(trial, value, state)
    board.write(search)
  show()
  if list(search.space) != [space.LEARNING_RATE]:
    jax.clear_caches()  # Other trials have other programs.
  compiled.prune()


def _no_memory(error: Exception) -> bool:
  """Whether XLA had no memory for a program."""
  jaxs = isinstance(error, jax.errors.JaxRuntimeError)
  return jaxs and "Out of memory" in str(error)


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

  with signals.catch_signals() as caught:
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
  if all(worker.exitcode for worker in workers):
    raise Interrupted(
      f"each worker was killed {_STARTS} times; the same command goes on", 1
    )


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
    work(study.begin(build, config, workdir, deadline), lambda: None)
  except Interrupted as stop:
    sys.exit(stop.status)
  except KeyboardInterrupt:
    sys.exit(130)
  except (UserError, OSError) as error:
    failures.put(str(error))
    sys.exit(2)


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
