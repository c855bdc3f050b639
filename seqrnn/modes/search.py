"""search: trains many runs of a config, whose fields Optuna chooses.

A trial is a run with its own workdir, such as trials/0007, which every mode can
read. The workdir of the search has these files:

  search.json   the config       trials.log   Optuna's journal of all trials
  trials.csv    the trials       best.json    the config of the best trial

Processes on one machine or several share a search through these files. Each
process holds a lock on its trial. The system frees the lock when the process
dies; another process then resumes the trial from its checkpoint.
"""

import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from seqrnn.config import read as config_lib
from seqrnn.config.field import FieldValue
from seqrnn.config.read import Config
from seqrnn.errors import UserError, needs_package
from seqrnn.experiment import Build
from seqrnn.runtime import files, pictures
from seqrnn.training import transfer

with needs_package("--mode=search", "optuna scikit-learn", "search"):
  from optuna.importance import FanovaImportanceEvaluator

  metadata.version("scikit-learn")  # For the importance of fields.

from seqrnn.searching import space, study

# Fields that must not change within a search, with those of its trainings.
_FIXED = "search.method", "search.pruning", "search.space"


def run(build: Build, config: Config, workdir: Path) -> dict[str, FieldValue]:
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
  search = study.begin(build, config, workdir)
  study.train_trials(search)
  ranked = search.ranked()
  with study.alone(workdir):
    search.write()
    names = _draw(search) if ranked else []
  if not ranked:
    errors = ["", *(t.user_attrs.get("error") for t in search.trials())]
    raise UserError(
      f"{workdir}: no trial has finished; the last error: {errors[-1]}"
    )
  best = ranked[0]
  print(
    f"{workdir}: finished; best validation loss {best.value:.4f} in trial"
    f" {best.number}; pictures: {', '.join(names)}\n"
    f"train with its settings: python run.py --config={workdir / 'best.json'}"
    f" --workdir={workdir / 'best'}"
  )
  return best.params


def _draw(search: study.Search) -> list[str]:
  """Writes Optuna's pictures of the study; returns their file names."""
  from matplotlib import pyplot, rc_context  # It takes a second.
  from optuna.visualization import matplotlib as plots

  loss: Any = {"target_name": "best validation loss"}
  fanova: Any = loss | {"evaluator": FanovaImportanceEvaluator(seed=0)}
  plotted = [
    ("history", plots.plot_optimization_history, loss),
    ("curves", plots.plot_intermediate_values, {}),
    ("parameters", plots.plot_slice, loss),
    ("parallel", plots.plot_parallel_coordinate, loss),
    ("importance", plots.plot_param_importances, fanova),
  ]
  if len({trial.value for trial in search.ranked()}) < 2:
    plotted.pop()  # There is no variance.
  # Optuna sets a style, too; and a $ in a value would start a formula.
  settings: Any = {"savefig.bbox": "tight", "text.parse_math": False}
  for name, plot, more in plotted:
    with warnings.catch_warnings(action="ignore"), rc_context(settings):
      plot(search.study, **more)
      figure = pyplot.gcf()
      pictures.save(figure, search.workdir / f"search-{name}.png")
      pyplot.close(figure)
  return [f"search-{name}.png" for name, _, _ in plotted]


def _begin(build: Build, config: Config, workdir: Path):
  """Writes search.json, or refuses a workdir that holds another search.

  Raises:
    UserError: the space is invalid, a field differs, or a run of this config
      would be refused.
  """
  space.parse_space(config)
  record = workdir / "search.json"
  if not record.exists():
    # Report a missing corpus, or a run to start from, before any trial begins.
    build(config, None)
    if "model.cell" not in config_lib.searched(config_lib.flat(config)):
      transfer.open_source(build, config, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
  with study.alone(workdir):
    if not record.exists():
      files.write(record, config_lib.encoded(config))
    old = config_lib.read_run(workdir, record.name)
  fixed = (*config_lib.TRAINING, *_FIXED)
  if differences := config_lib.differences(old, config, fixed):
    raise UserError(
      f"{workdir}: holds another search, {'; '.join(differences)}; name another"
      " --workdir"
    )
