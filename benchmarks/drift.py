"""Measures the warnings of `seqrnn.following.drift`.

  python benchmarks/drift.py FOLDER [--runs=200]

It writes logs of benchmarks/shop_log.py to the folder, trains a run there
unless it has one (about a minute), and scores new orders of the first and of
the second version of the shop with the run's models. It then counts

- false warnings in simulated runs, each with 1,000 calibration sessions of its
  own for four models and 30,000 new sessions: with continuous scores, and with
  orders drawn from the scored ones, whose scores are mostly ties;
- the sessions after which a share of orders of the new version is noticed.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

# An installation has no run.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import shop_log
from seqrnn.detection.conformal import Calibration, combine
from seqrnn.following.drift import Drift

_MODELS, _CALIBRATION, _NEW, _LATER = 4, 1_000, 30_000, 3_000
_FLAGS = [
  r"--config.data.log_header=<Date> <Time> <Level> <Content>",
  r"--config.data.log_session=(order-\d+)",
  *("--config.data.test_fraction=0.4", "--config.train.epochs=12"),
]
Groups = list[tuple[np.ndarray, np.ndarray]]
# rng, calibration sessions, new sessions, share of anomalies -> the scores of
# the calibration of each model, and those of new sessions [K, D].
Draw = Callable[
  [np.random.Generator, int, int, float], tuple[Groups, np.ndarray]
]


def continuous(
  rng: np.random.Generator, old: int, new: int, share: float
) -> tuple[Groups, np.ndarray]:
  """The product of three independent p-values, the same for all models."""
  each = old // _MODELS
  groups = [(rng.gamma(3, 1, each), np.ones(each)) for _ in range(_MODELS)]
  scores = rng.gamma(3, 1, new) + 20 * (rng.random(new) < share)
  return groups, np.tile(scores, (_MODELS, 1))


class Orders:
  """Scores of orders of the shop by the models of a run."""

  def __init__(self, folder: Path):
    """Trains and scores."""
    import experiments
    from seqrnn.data import sessions as data
    from seqrnn.detection import calibration
    from seqrnn.modes import detect

    run = experiments.load(_train(folder))
    experiment, read = detect.prepare(
      experiments.build, run.config, run.workdir
    )
    detector, arrays = calibration.calibrate(
      experiments.build, run.config, run.workdir, read, experiment.facts
    )
    self.normal = calibration.normal_scores(arrays, run.config.detect)
    self.names, self.how = self.normal.choice.combination

    def score(log: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
      """Scores [K, D] by name, and whether an order is normal [D]."""
      labels = str((folder / log).with_suffix(".csv"))
      found = data.read(run.config, detector.names, str(folder / log))
      found = data.with_labels(found, labels, run.config)
      distinct = found.distinct()
      scored = detector.score(found.take(distinct.first), distinct.counts)
      assert found.labels is not None
      by_name = {n: scored.scores[n][:, distinct.which] for n in self.names}
      return by_name, ~found.labels

    self.first, self.is_normal = score("first.log")
    self.second, _ = score("second.log")

  def draw(
    self, rng: np.random.Generator, old: int, new: int, share: float
  ) -> tuple[Groups, np.ndarray]:
    """Draws orders of the first version, with a calibration of their own."""
    normal, other = (
      np.flatnonzero(x) for x in (self.is_normal, ~self.is_normal)
    )
    bad = rng.random(new) < share
    which = np.where(bad, rng.choice(other, new), rng.choice(normal, new))
    groups, scores = [], []
    for k in range(_MODELS):
      some = rng.choice(normal, old // _MODELS)
      by_name = {n: x[k] for n, x in self.first.items()}
      limits = {n: Calibration(x[some]) for n, x in by_name.items()}
      combined = lambda of, limits=limits, by_name=by_name: combine(
        [limits[n].neg_log_p(by_name[n][of]) for n in self.names], self.how
      )
      groups.append((combined(some), np.ones(len(some))))
      scores.append(combined(which))
    return groups, np.stack(scores)


def _train(folder: Path) -> Path:
  """The workdir of a run on the log of the shop."""
  workdir, root = folder / "run", Path(__file__).parents[1]
  logs = {
    "shop": ["--orders=6000"],
    "first": ["--orders=20000", "--seed=9"],
    "second": ["--orders=5000", "--seed=10", "--version=2"],
  }
  for name, flags in logs.items():
    shop_log.main([str(folder / f"{name}.log"), *flags])
  if not (workdir / "detect").exists():
    path = f"--config.data.path={folder / 'shop.log'}"
    command = [sys.executable, "run.py", f"--workdir={workdir}"]
    for flags in (
      ["--config=configs/logs.py", path, *_FLAGS],
      ["--mode=detect"],
    ):
      subprocess.run([*command, *flags], check=True, cwd=root)
  return workdir


def false_warnings(draw: Draw, share: float, runs: int) -> int:
  """The number of runs with a warning."""
  count = 0
  for seed in range(runs):
    rng = np.random.default_rng(seed)
    groups, scores = draw(rng, _CALIBRATION, _NEW, share)
    drift = Drift(groups, seed)
    for number, scores_K in enumerate(scores.T):
      if drift.take(scores_K, number):
        count += 1
        break
  return count


def delays(orders: Orders, share: float, before: int, runs: int) -> str:
  """After how many sessions a share of orders of a new version is noticed."""
  normal, found, began = orders.normal, [], []
  groups = [(g.scores, -np.diff(g.above)) for g in normal.as_new.groups]
  first, second = map(normal.combined, (orders.first, orders.second))
  for seed in range(runs):
    rng = np.random.default_rng(seed)
    drift = Drift(groups, seed)
    for number in range(before + _LATER):
      new = number >= before and rng.random() < share
      pool = second if new else first
      change = drift.take(pool[:, rng.integers(pool.shape[1])], number)
      if change:
        found.append(change.sessions - before)
        began.append(abs(change.began - before))
        break
  early = sum(delay <= 0 for delay in found)
  found = sorted(found) + [_LATER] * (runs - len(found))
  return (
    f"{np.median(found):,.0f} | {max(found):,} | {early} |"
    f" {np.median(began) if began else np.nan:.0f}"
  )


def main():
  """Prints two tables."""
  parser = argparse.ArgumentParser(description="Drift.")
  parser.add_argument("folder", type=Path)
  parser.add_argument("--runs", type=int, default=200)
  given = parser.parse_args()
  given.folder.mkdir(parents=True, exist_ok=True)
  orders = Orders(given.folder.resolve())
  print("| new version after | share | median | most | early | began |")
  print("| --- | --- | --- | --- | --- | --- |")
  for before in (0, 1_000, 30_000):
    for share in (1.0, 0.3, 0.1):
      found = delays(orders, share, before, max(given.runs // 10, 1))
      print(f"| {before:,} | {share:.0%} | {found} |", flush=True)
  print("\n| scores | anomalies | runs with a warning |\n| --- | --- | --- |")
  for draw, name in ((continuous, "continuous"), (orders.draw, "shop")):
    for share in (0.0, 0.03, 0.1, 0.2):
      count = false_warnings(draw, share, given.runs)
      print(f"| {name} | {share:.0%} | {count} of {given.runs} |", flush=True)


if __name__ == "__main__":
  main()
