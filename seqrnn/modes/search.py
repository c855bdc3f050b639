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
import math
import signal
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from seqrnn import config as configs
from seqrnn.config import Config
from seqrnn.errors import Interrupted, UserError
from seqrnn.experiment import Experiment
from seqrnn.runtime import manifest

try:
  import optuna  # noqa: F401

  metadata.version("scikit-learn")  # By which Optuna finds importances.
except ImportError:
  raise UserError(
    "--mode=search needs the packages optuna and scikit-learn: pip install"
    " 'seqrnn[search]'"
  ) from None

from seqrnn.searching import space, study, workers
from seqrnn.searching.board import Board, write

# What must not change within a search.
_FIXED = (
  *configs.TRAINING,
  "search.method",
  "search.coarse_size",
  "search.pruning",
  "search.space.",
)


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, Any]:
  """Searches, or goes on searching, until a limit of `config.search`.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the search.
    workdir: where its files are.

  Returns:
    what was chosen for the best trial, as `space.Space` names it.

  Raises:
    UserError: the space is wrong, the workdir holds another search, or no trial
      has finished.
    Interrupted: SIGINT or SIGTERM came.
  """
  _begin(build, config, workdir)
  deadline = time.time() + 60 * (config.search.minutes or math.inf)
  search = study.begin(build, config, workdir, deadline)
  count = config.search.workers or 1
  if jax.default_backend() != "cpu":
    count = 1  # A second process would find no memory on it.
  shown = Board(search)
  try:
    with shown:
      if count == 1:
        workers.work(search, shown.show)
      else:
        workers.oversee(search, count, shown.show)
  except Interrupted as stop:
    shown.end()
    if stop.status <= 128:
      raise
    name = signal.Signals(stop.status - 128).name
    raise Interrupted(
      f"stopped by {name}; the same command goes on", stop.status
    ) from None
  from seqrnn.searching import pictures  # It takes a second to import.

  with study.alone(workdir):
    write(search)
    drawn = pictures.draw(search.trials(), search.space, workdir, search.folder)
  shown.end()
  best = search.best()
  if best is None:
    errors = [t.user_attrs.get("error") for t in search.trials()]
    raise UserError(
      f"{workdir}: no trial has finished; the last one: {(errors or [''])[-1]}"
    )
  state = "finished" if time.time() < deadline else "the minutes are over"
  print(
    f"{workdir}: {state}; best validation loss {best.value:.4f} in trial"
    f" {best.number}; pictures: {', '.join(drawn)}\n"
    f"python run.py --config={workdir / 'best.json'}"
  )
  return best.params


def _begin(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Writes search.json, or refuses a workdir that holds another search.

  Raises:
    UserError: the space is wrong, a field differs, or no run of this config
      could begin.
  """
  space.parse(config)
  record = workdir / "search.json"
  if not record.exists():
    build(config, None)  # A corpus that is missing is better known now.
    workdir.mkdir(parents=True, exist_ok=True)
  with study.alone(workdir):
    if not record.exists():
      kept = copy.deepcopy(config)
      kept.search.storage = kept.search.workers = None  # Of this machine alone.
      manifest.write(workdir, {record.name: configs.encoded(kept)})
    manifest.verify(record)
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
