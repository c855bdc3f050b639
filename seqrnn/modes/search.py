"""search: trains many runs of a config, whose fields Optuna chooses.

A trial is a run with its own workdir, such as trials/0007, which every mode can
read. The workdir of the search has these files:

  search.json   the config       trials.log   Optuna's journal of all trials
  trials.csv    the trials       best.json    the config of the best trial

Processes on one machine or several share a search through these files. Each
process holds a lock on its trial. The system frees the lock when the process
dies; another process then resumes the trial from its checkpoint.
"""

import copy
import math
import signal
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from seqrnn.errors import Interrupted, UserError
from seqrnn.experiment import Experiment
from seqrnn.runtime import files, manifest
from seqrnn.settings import config as config_lib
from seqrnn.settings.config import Config
from seqrnn.training import transfer

try:
  import optuna  # noqa: F401

  metadata.version("scikit-learn")  # For the importance of fields.
except ImportError:
  raise UserError(
    "--mode=search needs the packages optuna and scikit-learn: pip install -e"
    " '.[search]'"
  ) from None

from seqrnn.searching import space, study, workers
from seqrnn.searching.display import Display, write_results

# Fields that must not change within a search.
_FIXED = (
  *config_lib.TRAINING,
  "search.method",
  "search.coarse_size",
  "search.pruning",
  "search.space",
)


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, Any]:
  """Starts or resumes a search, until a limit of `config.search`.

  Args:
    build: a function config, vocabularies or None -> Experiment.
    config: the config of the search.
    workdir: the folder of the search.

  Returns:
    the values chosen for the best trial, by their names in `space.Space`.

  Raises:
    UserError: the space is invalid, the workdir holds another search, or no
      trial has finished.
    Interrupted: SIGINT or SIGTERM was received.
  """
  _begin(build, config, workdir)
  deadline = time.time() + 60 * (config.search.minutes or math.inf)
  search = study.begin(build, config, workdir, deadline)
  count = config.search.workers or 1
  if jax.default_backend() != "cpu":
    count = 1  # This process has reserved the accelerator's memory.
  display = Display(search)
  try:
    with display:
      if count == 1:
        workers.train_trials(search, display.show)
      else:
        workers.run_workers(search, count, display.show)
  except Interrupted as stop:
    display.end()
    if stop.status <= 128:
      raise
    name = signal.Signals(stop.status - 128).name
    raise Interrupted(
      f"stopped by {name}; repeat the command to resume", stop.status
    ) from None
  from seqrnn.searching import pictures  # Importing it takes a second.

  with study.alone(workdir):
    write_results(search)
    drawn = pictures.draw(search.trials(), search.space, workdir, search.folder)
  display.end()
  best = search.best()
  if best is None:
    errors = ["", *(t.user_attrs.get("error") for t in search.trials())]
    raise UserError(
      f"{workdir}: no trial has finished; the last error: {errors[-1]}"
    )
  state = "finished" if time.time() < deadline else "search.minutes have passed"
  print(
    f"{workdir}: {state}; best validation loss {best.value:.4f} in trial"
    f" {best.number}; pictures: {', '.join(drawn)}\n"
    f"train with its settings: python run.py --config={workdir / 'best.json'}"
    f" --workdir={workdir / 'best'}"
  )
  return best.params


def _begin(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Writes search.json, or refuses a workdir that holds another search.

  Raises:
    UserError: the space is invalid, a field differs, or a run of this config
      would be refused.
  """
  space.parse(config)
  record = workdir / "search.json"
  if not record.exists():
    # Report a missing corpus, or a run to start from, before any trial begins.
    build(config, None)
    if "model.cell" not in config_lib.searched(config_lib.flat(config)):
      transfer.find(build, config, workdir)
    files.make_workdir(workdir)
  with study.alone(workdir):
    if not record.exists():
      kept = copy.deepcopy(config)
      kept.search.workers = None  # It may change.
      manifest.write(workdir, {record.name: config_lib.encoded(kept)})
    old = config_lib.read_run(workdir, config_lib.defaults(), record.name)
  found = config_lib.differences(old, config, _FIXED)
  if found:
    raise UserError(
      f"{workdir}: holds another search, {'; '.join(found)}; name another"
      " --workdir"
    )
