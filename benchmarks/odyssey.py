"""The search of "LSTM: A Search Space Odyssey", for each of its nine cells.

  python benchmarks/odyssey.py --trials=20
  python benchmarks/odyssey.py --summary   # of the searches in the cache folder

Each cell has its own search of configs/odyssey.py on the JSB chorales, which
are downloaded. All searches have the same seed, so they draw the same trials. A
search is resumed if it was stopped, or if --trials is raised. The summary uses
equally many trials of each cell, and writes the tables of
docs/results/odyssey.md and docs/results/odyssey.png.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pages import put, table
from results import spread

if TYPE_CHECKING:
  from optuna.trial import FrozenTrial

_ROOT = Path(__file__).resolve().parents[1]
# An installation has no run.py.
sys.path.insert(0, str(_ROOT))
_TEXT = _ROOT / "docs" / "results" / "odyssey.md"
_PICTURE = _ROOT / "docs" / "results" / "odyssey.png"
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
    space: the search space.
    trials: the first trials that have a loss; equally many for each cell.
    lost: the number of trials that diverged before the first evaluation.
  """

  workdir: Path
  space: dict[str, Any]
  trials: list[FrozenTrial]
  lost: int

  def best(self) -> list[FrozenTrial]:
    """Returns the best tenth of the trials by validation loss."""
    count = round((len(self.trials) + self.lost) / 10)
    return sorted(self.trials, key=lambda t: t.value)[: max(count, 1)]


def search(cell: str, trials: int, cache: Path):
  """Starts or resumes a search with run.py.

  Raises:
    CalledProcessError: run.py ended with a status other than 0.
  """
  subprocess.run(
    [
      sys.executable,
      "run.py",
      "--config=configs/odyssey.py",
      "--mode=search",
      f"--workdir={cache / cell}",
      f"--config.model.cell={cell}",
      f"--config.search.trials={trials}",
      "--config.data.source=jsb",
    ],
    cwd=_ROOT,
    check=True,
  )


def read_study(workdir: Path, count: int) -> Study:
  """Reads the first trials of a search.

  The loss of a trial is its best loss, also if it diverged later. For the
  analysis of variance, losses above that of a coin toss for each key count as
  that loss.
  """
  from optuna.distributions import IntDistribution
  from optuna.trial import create_trial

  from seqrnn.config import read as config_lib
  from seqrnn.searching import space
  from seqrnn.training.history import read_rows

  distributions = space.parse_space(
    config_lib.read_config(workdir / "search.json")
  )
  trials = []
  for row in rows(workdir)[:count]:
    evaluations = read_rows(
      workdir / "trials" / f"{int(row['trial']):04}/metrics.csv"
    )
    losses = [
      float(evaluation["validation_loss"]) for evaluation in evaluations
    ]
    if losses:
      params = {
        name: (int if isinstance(d, IntDistribution) else float)(row[name])
        for name, d in distributions.items()
      }
      trials.append(
        create_trial(
          params=params,
          distributions=distributions,
          value=min(*losses, _COIN),
          user_attrs={"number": int(row["trial"])},
        )
      )
  return Study(workdir, distributions, trials, count - len(trials))


def importances(study: Study) -> dict[str, float]:
  """Returns the share of each field in the variance of the loss.

  Optuna's evaluator measures fields on a linear scale. A logarithmic field is
  therefore replaced by its logarithm, which the search draws uniformly.
  """
  import optuna
  from optuna.distributions import FloatDistribution, IntDistribution

  scales = {n: math.log if d.log else float for n, d in study.space.items()}
  ranges = {}
  for name, d in study.space.items():
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


def rows(workdir: Path) -> list[dict[str, str]]:
  """Returns the finished trials of a search."""
  with (workdir / "trials.csv").open(newline="") as file:
    return [r for r in csv.DictReader(file) if r["state"] != "running"]


def tested(study: Study, trial: FrozenTrial) -> float:
  """Returns the test loss of a trial's best checkpoint."""
  from seqrnn import experiments
  from seqrnn.config import read as config_lib
  from seqrnn.modes import evaluate

  workdir = study.workdir / "trials" / f"{trial.user_attrs['number']:04}"
  config = config_lib.read_run(workdir)
  config.evaluate.split = "test"
  with redirect_stdout(io.StringIO()):
    return evaluate.run(experiments.build, config, workdir)["loss"]


def summary(cache: Path):
  """Writes the tables and the picture."""
  workdirs = {cell: cache / cell for cell in CELLS}
  count = min(len(rows(workdir)) for workdir in workdirs.values())
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
  draw(studies, shares)


def draw(studies: dict[str, Study], shares: dict[str, Any]):
  """Draws the losses by learning rate, and the importance of each field."""
  from seqrnn.runtime import figures

  figure = figures.create(12, 5.5)
  left, right = figure.subplots(1, 2)
  for place, (cell, study) in enumerate(studies.items()):
    left.plot(
      [t.params["optimizer.learning_rate"] for t in study.trials],
      [t.value for t in study.trials],
      linestyle="",
      marker="ov^<>sDPX"[place],
      label=cell,
      alpha=0.8,
    )
  left.set(
    xscale="log",
    yscale="log",
    xlabel="learning rate",
    ylabel="best validation loss, nats a frame",
  )
  ticks = [9, 10, 12, 15, 20, 30, 40, 60]
  left.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
  left.minorticks_off()
  figures.grid(left)
  left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
  begins = [0.0] * len(shares)
  parts = {
    label: [share[name] for share in shares.values()]
    for name, label in _FIELDS.items()
  }
  parts["interactions"] = [1 - sum(f.values()) for f in shares.values()]
  for label, sizes in parts.items():
    right.barh(list(shares), sizes, left=begins, label=label)
    begins = [a + b for a, b in zip(begins, sizes, strict=True)]
  right.axvline(2 / 3, color="black", linestyle=":")
  right.invert_yaxis()
  right.set(xlim=(0, 1), xlabel="share in the variance (dotted: two thirds)")
  right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
  figures.save(figure, _PICTURE, dpi=90)


def main(argv: list[str] | None = None):
  """Searches for all cells in turn, then summarises."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--trials", type=int, default=20)
  parser.add_argument("--cache", type=Path, default=_ROOT / "runs" / "odyssey")
  parser.add_argument("--summary", action="store_true")
  arguments = parser.parse_args(argv)
  cache = arguments.cache.resolve()
  if not arguments.summary:
    for cell in CELLS:
      search(cell, arguments.trials, cache)
  for cell in CELLS:
    if not (cache / cell / "trials.csv").exists():
      parser.error(f"--cache={arguments.cache}: has no search of {cell}")
  summary(cache)


if __name__ == "__main__":
  main()
