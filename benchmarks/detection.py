"""Runs detection over seeds; makes the tables of docs/results/detection.md.

  python benchmarks/detection.py --only=hdfs,opcodes    # seeds 0-4
  python benchmarks/detection.py DATA --seeds=1 --cache=kept

DATA is a folder with the data; docs/results/detection.md says where to get
them. Without DATA, hdfs/ is made from the data set of the catalogue, which is
downloaded, and the cases of other folders are left out. For each seed of a
case, run.py trains and detects in its own processes. benchmarks/detection.json
keeps the figures of all seeds, from which the tables are made. The runs are in
the cache folder; an interrupted run is resumed, and a finished run is not
repeated.
"""

import argparse
import csv
import functools
import gzip
import json
import operator
import re
import shlex
import statistics
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pages
import recipes
from recipes import ROOT, spread

from seqrnn import catalogue
from seqrnn.data.logs import anomalies
from seqrnn.logs.detect.scores import BASELINES
from seqrnn.runtime import files

_KEPT = ROOT / "benchmarks" / "detection.json"
_PAGE = ROOT / "docs" / "results" / "detection.md"
_VERDICT = "<!-- benchmarks/detection.py: verdict -->", "<!-- :verdict -->"
_CASES = "<!-- benchmarks/detection.py: cases -->", "<!-- :cases -->"
RATES = (0.01, 0.005, 0.002, 0.001)
_RATIOS = "precision", "recall", "f1"
_FIGURES = *_RATIOS, "false_alarm_rate", "average_precision", "oracle_f1"
# The cases of the first table of the page.
_VERDICTS = ("hdfs", "raw", "openstack", "bpi12", "calls", "opcodes")


class Case(NamedTuple):
  """A data set, its training, its detections, and its section of the page.

  The attributes are those that benchmarks/detection.toml describes; `tables` is
  a function of the records of all seeds.
  """

  title: str
  about: str
  config: str
  fields: dict[str, Any]
  detect: dict[str, dict[str, Any]]
  tables: Callable[[list[dict[str, Any]]], list[str]]
  sessions: Sequence[str] = ()


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
  return pages.table(columns, rows).split("\n")


def _values(runs: list[dict[str, Any]], *path: str) -> list[float]:
  """Returns the figures of runs at a path of keys."""
  return [functools.reduce(operator.getitem, path, run) for run in runs]


def _mean(runs: list[dict[str, Any]], *path: str, digits: int = 3) -> str:
  """Returns the spread over runs of the figure at a path of keys."""
  return spread(_values(runs, *path), digits)


def _by_rate(runs: list[dict[str, Any]]) -> list[str]:
  """Makes tables by nominal rate, first of the combined score, then of all."""
  parts = [run["detect"]["default"] for run in runs]
  distinct = "distinct" in parts[0]["rates"]["combined"][str(RATES[0])]
  columns = ["nominal rate", "achieved", "95 % of calibrations"]
  columns += ["P", "R", "F1"]
  columns += ["distinct: P", "R", "F1"] * distinct
  rows = []
  for rate in map(str, RATES):
    here = ("rates", "combined", rate)
    low, high = parts[0]["rate_95"][rate]
    row = [rate, _mean(parts, *here, "false_alarm_rate", digits=4)]
    row.append(f"{low:.4f} to {high:.4f}")
    for inside in ((), ("distinct",))[: 1 + distinct]:
      row += [_mean(parts, *here, *inside, key) for key in _RATIOS]
    rows.append(row)
  lines = [
    *textwrap.wrap(
      "Results of the combined score, with p-values from"
      f" {_mean(parts, 'calibration', digits=0)} normal sessions;"
      f" {_mean(parts, 'left_out', digits=0)} more were left out as anomalous."
      f" Combined scores: {', '.join(parts[0]['scores'])}.",
      80,
    ),
    "",
    *_table(columns, rows),
    "",
    *textwrap.wrap(
      "All scores with the same calibration: F1 and, in brackets, the achieved"
      " false-alarm rate at each nominal rate. Average precision (AP) and the"
      " best F1 of any threshold (oracle F1) do not depend on the calibration."
      " Only labels can choose the threshold of the oracle.",
      80,
    ),
    "",
  ]
  columns = ["score", "AP", "oracle F1", *(f"F1 at {rate}" for rate in RATES)]
  columns[2:2] = ["AP, distinct"] * distinct
  rows = []
  every = parts[0]["rates"]
  for name in sorted(every, key=lambda name: name != "combined"):
    any_rate = ("rates", name, str(RATES[0]))
    cells = [name, _mean(parts, *any_rate, "average_precision")]
    if distinct:
      cells.append(_mean(parts, *any_rate, "distinct", "average_precision"))
    cells.append(_mean(parts, *any_rate, "oracle_f1"))
    for rate in every[name]:
      here = ("rates", name, rate)
      false = _mean(parts, *here, "false_alarm_rate", digits=4)
      cells.append(f"{_mean(parts, *here, 'f1')} ({false})")
    rows.append(cells)
  return lines + _table(columns, rows)


def _by_score(runs: list[dict[str, Any]]) -> list[str]:
  """Makes a table of the scores at the default rate."""
  rows = []
  here = ("detect", "default", "figures")
  for name in runs[0]["detect"]["default"]["figures"]:
    keys = ("average_precision", "oracle_f1", "f1")
    row = [_mean(runs, *here, name, key) for key in keys]
    achieved = _mean(runs, *here, name, "false_alarm_rate", digits=4)
    rows.append([name, *row, achieved])
  columns = ("score", "AP", "oracle F1", "F1 at .005", "false-alarm rate")
  return _table(columns, rows)


def _by_rule(runs: list[dict[str, Any]]) -> list[str]:
  """Makes a table of the sessions that `detect.rule` flags."""
  here = ("detect", "default", "figures", "rule topk")
  row = [_mean(runs, *here, key) for key in _RATIOS]
  row.append(_mean(runs, *here, "false_alarm_rate", digits=4))
  return _table(("P", "R", "F1", "false-alarm rate"), [row])


def _by_head(runs: list[dict[str, Any]]) -> list[str]:
  """Makes a table of average precision by head."""
  columns = ("head", "AP of mean", "of max", "of top_mean")
  rows = []
  for head in runs[0]["detect"]:
    here = ("detect", head, "figures")
    row = [
      _mean(runs, *here, score, "average_precision")
      for score in ("mean", "max", "top_mean")
    ]
    rows.append([head, *row])
  return _table(columns, rows)


def _by_kind(runs: list[dict[str, Any]]) -> list[str]:
  """Makes a table of average precision by kind of injected anomaly."""
  here = ("detect", "default", "kinds")
  rows = []
  for score in runs[0]["detect"]["default"]["kinds"]:
    row = [_mean(runs, *here, score, kind) for kind in anomalies.CHANGES]
    every = ("detect", "default", "figures", score, "average_precision")
    rows.append([score, *row, _mean(runs, *every)])
  return _table(("score", *anomalies.CHANGES, "all"), rows)


def read_cases() -> dict[str, Case]:
  """Returns the cases of detection.toml by name."""
  path = ROOT / "benchmarks" / "detection.toml"
  cases = tomllib.loads(path.read_text("utf-8"))
  shared = cases.pop("shared")
  for case in cases.values():
    case["fields"] = recipes.inherit(case.get("fields", {}), shared)
    for name, fields in case["detect"].items():
      case["detect"][name] = recipes.inherit(fields, shared)
    case["tables"] = _TABLES[case["tables"]]
  return {name: Case(**case) for name, case in cases.items()}


_TABLES = {
  "rate": _by_rate,
  "score": _by_score,
  "rule": _by_rule,
  "head": _by_head,
  "kind": _by_kind,
}
CASES = read_cases()


def commands(case: Case, data: str) -> dict[str, list[str]]:
  """Returns the arguments of run.py by the name of the command."""

  def flags(fields: dict[str, Any]) -> list[str]:
    return [flag.replace("{data}", data) for flag in recipes.flags(fields)]

  train = [f"--config={case.config}", *flags(case.fields)]
  looks = {
    name: ["--mode=detect", *flags(fields)]
    for name, fields in case.detect.items()
  }
  return {"train": train, **looks}


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
  """Returns the figures that the page shows, rounded."""
  return {key: round(figures[key], 6) for key in _FIGURES if key in figures}


def by_rate(workdir: Path, which: np.ndarray | None) -> dict[str, Any]:
  """Computes the figures of each score at each nominal rate.

  Args:
    workdir: the run with sessions.csv and the calibration.
    which: the distinct session of each session; None if not known.
  """
  from seqrnn.logs.detect import (  # These imports import JAX.
    conformal,
    evaluation,
  )

  report = json.loads((workdir / "detect" / "report.json").read_text())
  with (workdir / "detect" / "sessions.csv").open(newline="") as file:
    reader = csv.reader(file)
    columns = dict(zip(next(reader), zip(*reader, strict=True), strict=True))
  labels = np.array(columns["label"]) == "1"
  n = report["thresholds"]["sessions"]["calibration"]
  rates = {}
  for name in report["figures"]:
    if name not in columns:  # The figures of another rule than the rate.
      continue
    scores = np.array(columns[name], float)
    # A score is -log p, rounded; the highest exceed the resolution of p.
    p = np.maximum(np.exp(-scores), 1 / (n + 1))
    p = np.round(p * (n + 1)) / (n + 1)
    rates[name] = {}
    for rate in RATES:
      flagged = conformal.is_flagged(p, rate)
      figures = _rounded(evaluation.metrics(scores, flagged, labels))
      if which is not None:
        _, first = np.unique(2 * which + labels, return_index=True)
        distinct = scores[first], flagged[first], labels[first]
        figures["distinct"] = _rounded(evaluation.metrics(*distinct))
      rates[name][str(rate)] = figures
  return {
    "rates": rates,
    "rate_95": {str(rate): conformal.beta_interval(rate, n) for rate in RATES},
    "calibration": n,
    "left_out": report["calibration"]["left_out"],
    "scores": report["calibration"]["scores"],
  }


def equal(paths: Iterable[Path]) -> np.ndarray:
  """Returns the index of the distinct session of each line of the files."""
  index: dict[tuple[str, ...], int] = {}
  which = []
  for path in paths:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as file:
      which += [
        index.setdefault(tuple(line.split()), len(index))
        for line in file
        if line.strip()
      ]
  return np.array(which)


def gather(case: Case, data: Path, workdir: Path) -> dict[str, Any]:
  """Collects the results of the latest detection."""
  report = json.loads((workdir / "detect" / "report.json").read_text())
  gathered: dict[str, Any] = {
    "figures": {name: _rounded(row) for name, row in report["figures"].items()},
    "seconds": {k: round(s, 1) for k, s in report["seconds"].items()},
  }
  if report["average_precision_by_kind"]:
    gathered["kinds"] = report["average_precision_by_kind"]
  if case.tables is _by_rate:
    paths = [data / path for path in case.sessions]
    gathered |= by_rate(workdir, equal(paths) if paths else None)
    del gathered["figures"]
  return gathered


def measure(case: Case, data: Path, seed: int, workdir: Path) -> dict[str, Any]:
  """Trains and detects with one seed, and skips finished commands.

  Raises:
    SystemExit: run.py ended with a status other than 0.
  """
  done = workdir / "measured.json"
  record = json.loads(done.read_text()) if done.exists() else {"detect": {}}
  for name, flags in commands(case, str(data)).items():
    if name in record or name in record["detect"]:
      continue
    flags = [*flags, f"--config.seed={seed}"] if name == "train" else flags
    seconds = recipes.run([*flags, f"--workdir={workdir}"])
    if name == "train":
      with (workdir / "metrics.csv").open(newline="") as file:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(file)]
      record["train"] = {"validation_loss": min(losses), **seconds}
    else:
      record["detect"][name] = {**gather(case, data, workdir), **seconds}
    files.write(done, json.dumps(record))
  return record


def _seconds(runs: list[dict[str, Any]], *path: str) -> str:
  wall, cpu = (
    statistics.mean(_values(runs, *path, key)) for key in ("wall", "cpu")
  )
  return f"{wall:.0f} ({cpu:.0f})"


def _best_baseline(figures: dict[str, dict[str, Any]]) -> str:
  """The baseline of the highest average precision, and this precision."""
  precisions = {
    name: row["average_precision"]
    for name, row in figures.items()
    if name in BASELINES
  }
  name = max(precisions, key=lambda name: precisions[name])
  return f"{precisions[name]:.3f} ({name})"


def _at_rate(part: dict[str, Any]) -> dict[str, Any]:
  """The figures of each score at the default rate."""
  return {score: rates["0.005"] for score, rates in part["rates"].items()}


def verdict(records: dict[str, Any]) -> str:
  """A table of the default detection, without labels, in each case."""
  rows = []
  for name in (name for name in _VERDICTS if name in records):
    runs = list(records[name]["runs"].values())
    parts = [run["detect"]["default"] for run in runs]
    figures = [part.get("figures") or _at_rate(part) for part in parts]
    digits = {"f1": 3, "false_alarm_rate": 4, "average_precision": 3}
    row = [_mean(figures, "combined", x, digits=n) for x, n in digits.items()]
    rows.append([CASES[name].title, *row, _best_baseline(figures[0])])
  columns = ["default, no labels", "F1 at .005", "false alarms"]
  columns += ["AP", "AP of the best baseline"]
  return pages.table(columns, rows)


def render(records: dict[str, Any]) -> str:
  """The sections of the cases, from the figures in detection.json."""
  lines = []
  for name in (name for name in CASES if name in records):
    case, record = CASES[name], records[name]
    runs = list(record["runs"].values())
    seconds = {"train": _seconds(runs, "train")}
    for look in runs[0]["detect"]:
      which = "detect" if look == "default" else f"detect, {look}"
      seconds[which] = _seconds(runs, "detect", look)
    listed = "; ".join(f"{name} {value}" for name, value in seconds.items())
    lines += [
      f"## {case.title}",
      "",
      *textwrap.wrap(case.about, 80),
      "",
      *case.tables(runs),
      "",
      *textwrap.wrap(
        f"Seeds {', '.join(record['runs'])}; Python, jax, flax"
        f" {', '.join(record['versions'])}. Validation loss"
        f" {_mean(runs, 'train', 'validation_loss', digits=4)} nats per event."
        f" Seconds: {listed}.",
        80,
      ),
      "",
      *(
        f"    python run.py --workdir=runs/{run} {command}"
        for run in re.findall(r"^--config=configs/(\w+)", record["commands"][0])
        for command in record["commands"]
      ),
      "",
    ]
  missing = [name for name in CASES if name not in records]
  if missing:
    lines += [f"Not yet run: {', '.join(missing)}.", ""]
  return "\n".join(lines).rstrip()


def fetch(folder: Path, name: str = "hdfs"):
  """Makes the folder DATA with hdfs/, from a data set of the catalogue."""
  place = folder / "hdfs"
  place.mkdir(parents=True, exist_ok=True)
  for split in catalogue.sets()[name].files:
    for path in catalogue.fetch(name, split):
      content = path.read_bytes()
      if split == "test":  # As the commands name it.
        (place / f"{path.name}.gz").write_bytes(gzip.compress(content, 1))
      else:
        (place / path.name).write_bytes(content)


def main(argv: list[str] | None = None):
  """Runs the cases, seed by seed."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("data", type=Path, nargs="?")
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--only")
  parser.add_argument("--cache", type=Path)
  arguments = parser.parse_args(argv)
  if arguments.data and not arguments.data.is_dir():
    parser.error(f"DATA={arguments.data}: no such folder")
  folders = {
    name: set(re.findall(r"DATA/(\w+)", str(commands(case, "DATA"))))
    for name, case in CASES.items()
  }
  has = lambda folder: (arguments.data / folder).is_dir()
  without = [
    name
    for name, some in folders.items()
    if (all(map(has, some)) if arguments.data else some <= {"hdfs"})
  ]
  names = (arguments.only or ",".join(without)).split(",")
  if missing := set(CASES) - set(without) & set(names):
    parser.error(f"DATA: has no folder that {', '.join(sorted(missing))} need")
  if unknown := set(names) - set(CASES):
    parser.error(
      f"--only={arguments.only}: knows no {', '.join(sorted(unknown))}"
    )
  with tempfile.TemporaryDirectory() as temporary:
    cache = (arguments.cache or Path(temporary)).resolve()
    data = arguments.data.resolve() if arguments.data else cache / "data"
    if not arguments.data and any(folders[name] for name in names):
      fetch(data)
    for seed in range(arguments.seeds):
      for name in names:
        case = CASES[name]
        settings = commands(case, "DATA")
        workdir = recipes.workdir(cache, name, settings, seed)
        workdir.mkdir(parents=True, exist_ok=True)
        record = measure(case, data, seed, workdir)
        listed = [shlex.join(command) for command in settings.values()]
        records = recipes.keep(_KEPT, name, listed, seed, record)
        pages.put(_PAGE, _VERDICT, verdict(records))
        pages.put(_PAGE, _CASES, render(records))
  print(verdict(json.loads(_KEPT.read_text())))


if __name__ == "__main__":
  main()
