"""Processes that train the trials of a search."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import wait
from typing import Any

import jax
from optuna.trial import Trial, TrialState

from seqrnn.config import read as config_lib
from seqrnn.errors import Interrupted, MachineError, UserError, visible
from seqrnn.runtime import compiled, devices, launch, signals
from seqrnn.searching import space, study
from seqrnn.searching.study import Search, alone
from seqrnn.training import train
from seqrnn.training.history import read_rows
from seqrnn.training.step import keep_last, without_rate

# Gives trials of equal programs one experiment; those that start from a run
# have one without vocabularies, too.
_share = keep_last(lambda config, names: (without_rate(config), names), count=2)
_PAUSE = 0.2  # Seconds between two looks at the trials of other processes.


def train_trials(search: Search, show: Callable[[], None]):
  """Trains trials until none can begin and none is running elsewhere.

  Raises:
    Interrupted: a signal was caught.
  """
  search = search._replace(build=_share(search.build))
  with signals.catch_signals() as caught:
    while True:
      if caught:
        raise Interrupted("", 128 + caught[0])
      claimed = study.claim(search)
      show()
      if claimed is not None:
        trial, lock = claimed
        with lock:
          run_trial(search, trial)
      elif any(trial.state == TrialState.RUNNING for trial in search.trials()):
        time.sleep(_PAUSE)
      else:
        return


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

  def should_stop(row: dict[str, Any]) -> bool:
    nonlocal pruned
    count = len(read_rows(folder / "metrics.csv"))
    if count not in reported:
      trial.report(row["validation_loss"], count)
    pruned = trial.should_prune()
    return pruned

  with (folder / "log.txt").open("a", encoding="utf-8") as log:
    try:
      config = space.trial_config(search.config, trial.params)
      config_lib.check(config)
      with redirect_stdout(log), redirect_stderr(log):
        value = train.fit(search.build, config, folder, should_stop)["best"]
    except (Interrupted, MachineError):
      with suppress(OSError, MachineError):  # The disk may still be full.
        study.release(trial)
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
  compiled.prune()


def run_workers(search: Search, count: int, show: Callable[[], None]):
  """Starts workers and waits for them; others resume a killed one's trial.

  Raises:
    Interrupted: a signal was caught, and all workers have ended.
    UserError: a worker has raised it.
  """
  context = multiprocessing.get_context("spawn")
  failures = context.SimpleQueue()
  shared = search.build, search.config, search.workdir
  workers = []
  with signals.catch_signals() as caught:
    for index in range(count):
      args = index, count, jax.local_device_count(), failures, shared
      workers.append(context.Process(target=_worker, args=args, daemon=True))
      workers[-1].start()
    while alive := [w for w in workers if w.exitcode is None]:
      wait([worker.sentinel for worker in alive], timeout=1)
      show()
      if caught or any(worker.exitcode in (1, 2) for worker in workers):
        for worker in alive:
          worker.terminate()
          worker.join()
  if not failures.empty():
    raise UserError(failures.get())
  if caught:
    raise Interrupted("", 128 + caught[0])
  if any(worker.exitcode == 1 for worker in workers):  # A bug.
    raise Interrupted("a worker has ended for the reason above", 1)
  if all(worker.exitcode for worker in workers):
    raise Interrupted("each worker was killed; repeat the command to resume", 1)


def _worker(
  index: int, count: int, cpu_devices: int, failures: Any, shared: tuple
):
  """Trains trials in a process that ends with its parent.

  Args:
    index: the number of this worker.
    count: the number of workers of this machine.
    cpu_devices: the number of CPU devices of each.
    failures: a queue for the message of a user's mistake.
    shared: the arguments of `study.begin`.
  """
  launch.prepare()
  parent = multiprocessing.parent_process()
  assert parent is not None, "another process starts it"

  sentinels = [parent.sentinel]
  follow = lambda: (wait(sentinels), os._exit(1))
  threading.Thread(target=follow, daemon=True).start()
  jax.config.update("jax_num_cpu_devices", cpu_devices)
  status = 0
  try:
    if hasattr(os, "sched_setaffinity"):  # Threads that JAX starts inherit it.
      cores = sorted(os.sched_getaffinity(0))
      size = max(len(cores) // count, 1)
      first = index * size % len(cores)
      os.sched_setaffinity(0, cores[first : first + size])
    devices.take_gpu(index, count)
    lines = devices.start()
    # The parent starts no GPU, so it cannot say whether JAX uses them.
    for line in lines if devices.gpus() else ():
      print(f"worker {index + 1} of {count}: {visible(line)}", file=sys.stderr)
    train_trials(study.begin(*shared), lambda: None)
  except Interrupted as stop:
    status = stop.status
  except KeyboardInterrupt:
    status = 130
  except (UserError, OSError) as error:
    failures.put(str(error))
    status = 2
  launch.end(status)  # Otherwise JAX takes half a second to end.
