"""The search of "LSTM: A Search Space Odyssey", for each of its nine cells.

  python benchmarks/odyssey.py --trials=20
  python benchmarks/odyssey.py --summary   # of the searches in the cache folder

Each cell has its own search of configs/odyssey.py on the JSB chorales, which
are downloaded. All searches have the same seed, so they draw the same trials. A
search is resumed if it was stopped, or if --trials is raised. The summary uses
equally many trials of each cell, and writes the tables of
docs/results/odyssey.md.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import recipes
from pages import put, table
from recipes import ROOT, spread

if TYPE_CHECKING:
  from optuna.trial import FrozenTrial

_TEXT = ROOT / "docs" / "results" / "odyssey.md"
# The summary replaces the text between these two lines.
_MARKS = "<!-- benchmarks/odyssey.py: -->", "<!-- :tables -->"
_COIN = 88 * math.log(2)  # The loss of a coin toss for each key.
CELLS = {
  "odyssey": "all there is",
  "odyssey_nig": "no input gate",
  "odyssey_nfg": "no forget gate",
  "odyssey_nog": "no output gate",
  "odyssey_niaf": "no input activation",
  "odyssey_noaf": "no output activation",
  "odyssey_cifg": "coupled gates",
  "odyssey_np": "no peepholes",
  "odyssey_fgr": "full gate recurrence",
}
_FIELDS = {
  "optimizer.learning_rate": "learning rate",
  "model.hidden_size": "hidden size",
  "model.input_noise": "input noise",
  "1 - optimizer.momentum": "momentum",
}


class Study(NamedTuple):
  """The search of a cell.

  Attributes:
    workdir: the folder of the search.
    trials: the first trials that have a loss; equally many for each cell.
    lost: the number of trials that diverged before the first evaluation.
  """

  workdir: Path
  trials: list[FrozenTrial]
  lost: int

  def best(self) -> list[FrozenTrial]:
    """Returns the best tenth of the trials by validation loss."""
    count = round((len(self.trials) + self.lost) / 10)
    return sorted(self.trials, key=lambda t: t.value)[: max(count, 1)]


def search(cell: str, trials: int, cache: Path):
  """Starts or resumes a search with run.py.

  Raises:
    SystemExit: run.py ended with a status other than 0.
  """
  fields = {"model.cell": cell, "search.trials": trials, "data.source": "jsb"}
  command = ["--config=configs/odyssey.py", "--mode=search"]
  recipes.run([*command, f"--workdir={cache / cell}", *recipes.flags(fields)])


def read_study(workdir: Path, count: int) -> Study:
  """Reads the first trials of a search.

  The loss of a trial is its best loss, also if it diverged later. For the
  analysis of variance, losses above that of a coin toss for each key count as
  that loss.
  """
  from optuna.trial import create_trial

  trials = []
  for trial in finished(workdir)[:count]:
    if trial.intermediate_values:
      losses = trial.intermediate_values.values()
      trials.append(
        create_trial(
          params=trial.params,
          distributions=trial.distributions,
          value=min(*losses, _COIN),
          user_attrs={"number": trial.number},
        )
      )
  return Study(workdir, trials, count - len(trials))


def importances(study: Study) -> dict[str, float]:
  """Returns the share of each field in the variance of the loss.

  Optuna's evaluator measures fields on a linear scale. A logarithmic field is
  therefore replaced by its logarithm, which the search draws uniformly.
  """
  import optuna
  from optuna.distributions import FloatDistribution, IntDistribution

  space: dict[str, Any] = study.trials[0].distributions
  scales = {n: math.log if d.log else float for n, d in space.items()}
  ranges = {}
  for name, d in space.items():
    margin = 0.5 if isinstance(d, IntDistribution) else 0.0
    ends = d.low - margin, d.high + margin
    ranges[name] = FloatDistribution(*map(scales[name], ends))
  scaled = optuna.create_study()
  for trial in study.trials:
    params = {n: scales[n](value) for n, value in trial.params.items()}
    scaled.add_trial(
      optuna.create_trial(
        params=params, distributions=ranges, value=trial.value
      )
    )
  return optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(scaled)


def finished(workdir: Path) -> list[FrozenTrial]:
  """Returns the finished trials of a search."""
  from optuna import load_study, logging
  from optuna.storages import journal

  logging.set_verbosity(logging.ERROR)
  backend = journal.JournalFileBackend(str(workdir / "trials.log"))
  storage = journal.JournalStorage(backend)
  trials = load_study(study_name=None, storage=storage).trials
  return [trial for trial in trials if trial.state.is_finished()]


def tested(study: Study, trial: FrozenTrial) -> float:
  """Returns the test loss of a trial's best checkpoint."""
  workdir = study.workdir / "trials" / f"{trial.user_attrs['number']:04}"
  return recipes.evaluate(workdir, "test")["loss"]


def summary(cache: Path):
  """Writes the tables."""
  workdirs = {cell: cache / cell for cell in CELLS}
  count = min(len(finished(workdir)) for workdir in workdirs.values())
  studies = {
    cell: read_study(workdir, count) for cell, workdir in workdirs.items()
  }
  losses, shares = [], {}
  for cell, study in studies.items():
    best = study.best()
    shares[cell] = importances(study)
    at = best[0].params
    losses.append(
      [
        cell,
        CELLS[cell],
        spread([trial.value for trial in best]),
        spread([tested(study, trial) for trial in best]),
        f"{at['optimizer.learning_rate']:.2g}",
        str(at["model.hidden_size"]),
        f"{at['model.input_noise']:.2f}",
        f"{1 - at['1 - optimizer.momentum']:.2f}",
        str(study.lost),
      ]
    )
  explained = [
    [cell, *(f"{parts[name]:.0%}" for name in _FIELDS)]
    for cell, parts in shares.items()
  ]
  put(
    _TEXT,
    _MARKS,
    f"{count} trials a cell; the best {len(best)} of each:\n\n"
    + table(
      ["cell", "", "validation", "test", "learning rate of the best one"]
      + ["hidden size", "input noise", "momentum", "diverged at once"],
      losses,
    )
    + "\n\nShares in the variance of the validation loss:\n\n"
    + table(["cell", *_FIELDS.values()], explained),
  )


def main(argv: list[str] | None = None):
  """Searches for all cells in turn, then summarises."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--trials", type=int, default=20)
  parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "odyssey")
  parser.add_argument("--summary", action="store_true")
  arguments = parser.parse_args(argv)
  cache = arguments.cache.resolve()
  if not arguments.summary:
    for cell in CELLS:
      search(cell, arguments.trials, cache)
  for cell in CELLS:
    if not (cache / cell / "trials.log").exists():
      parser.error(f"--cache={arguments.cache}: has no search of {cell}")
  summary(cache)


if __name__ == "__main__":
  main()
