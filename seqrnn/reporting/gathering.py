"""Gathers several runs in a table: fields that differ, and their figures.

comparison.html shows the table, beside the curves of the runs.
"""

import glob
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from seqrnn.config.read import IDENTITY, LIMITS, Config, flat, read_run
from seqrnn.data.read import stored
from seqrnn.data.sources.corpora import SPLITS
from seqrnn.errors import UserError
from seqrnn.reporting import page, summary
from seqrnn.runtime import files
from seqrnn.training import checkpoint
from seqrnn.training.history import read_rows
from seqrnn.training.train import limits_reached


def find_workdirs(paths: Iterable[str | os.PathLike]) -> list[Path]:
  """The workdirs that paths and patterns name, each once.

  A pattern, such as `runs/*`, may also match folders that have no run. The
  workdir of a search stands for those of its trials.

  Raises:
    UserError: a pattern matches no run.
  """
  workdirs: dict[Path, None] = {}
  for pattern in paths:
    path = files.plain(pattern)
    runs = files.matching_runs(path)
    has = lambda name, path=path: os.path.exists(os.path.join(path, name))
    if runs == [path] and has("search.json") and not has("config.json"):
      trials = os.path.join(glob.escape(path), "trials", "*")
      runs = files.matching_runs(trials)
    workdirs |= dict.fromkeys(map(Path, runs))
  return list(workdirs)


class BestEvaluation(NamedTuple):
  """A run, and its evaluation with the lowest validation loss.

  Attributes:
    fields: of the config, by their dotted names.
    progress: `finished`, or the step of the last checkpoint.
    step: of the evaluation; None before the first one.
    figures: SPLIT_FIGURE of each split, with those of evaluation.json if it is
      of that step.
  """

  fields: dict[str, Any]
  progress: str
  step: int | None
  figures: dict[str, float]


def best_evaluation(workdir: Path) -> BestEvaluation:
  """The evaluation of a run's checkpoint, that `train.choice` names.

  Raises:
    UserError: there is no run, or a file of it is damaged.
  """
  files.check_links(workdir)
  config = read_run(workdir)
  rows = read_rows(workdir / "metrics.csv", "validation_loss")
  step, figures = None, {}
  if rows:
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    if config.train.choice != "best":
      best = rows[-1]
    step = int(best["step"])
    evaluated = _evaluation(workdir / "evaluation.json", step)
    for name in summary.ordered(summary.validation_figures(best)):
      for split in SPLITS:
        column = f"{split}_{name}"
        if column in best:
          figures[column] = float(best[column])
        elif split == evaluated.get("split") and name in evaluated:
          figures[column] = evaluated[name]
  progress = _progress(workdir, config)
  return BestEvaluation(flat(config), progress, step, figures)


def _progress(workdir: Path, config: Config) -> str:
  """Whether a run has finished, or the step of its last checkpoint."""
  saved = checkpoint.steps(workdir / "checkpoints")
  step = saved[-1] if saved else 0
  with suppress(UserError, OSError, TypeError):  # A checkpoint may be damaged.
    folder = workdir / "checkpoints" / str(step)
    position = checkpoint.read_position(folder)
    if limits_reached(config, position):
      return "finished"
  return f"step {step}"


def _evaluation(path: Path, step: int) -> dict[str, Any]:
  """The content of evaluation.json; {} if it is missing or of another step.

  Raises:
    UserError: the file is not as --mode=evaluate writes it.
  """
  if not path.exists():
    return {}
  record = stored.read_object(path, "evaluate the run again")
  return record if record.get("step") == step else {}


def gather(workdirs: Sequence[Path]) -> list[dict[str, Any]]:
  """A row for each run, all with the same columns; None where one is missing.

  Its columns are `run`, the name; the fields that differ between the runs, of
  those that training depends on; and `state`, the progress, `step` and the
  figures of the best evaluation.

  Raises:
    UserError: there is no run, or a file of it is damaged.
  """
  runs = [best_evaluation(workdir) for workdir in workdirs]
  names = [workdir.absolute().name for workdir in workdirs]
  if len(set(names)) < len(names):
    names = list(map(str, workdirs))
  configs = [run.fields for run in runs]
  fields = [
    field
    for field, value in configs[0].items()
    if field.startswith((*IDENTITY, *LIMITS))
    and any(config[field] != value for config in configs)
  ]
  rows = [
    {
      "run": name,
      **{field: run.fields[field] for field in fields},
      "state": run.progress,
      "step": run.step,
      **run.figures,
    }
    for name, run in zip(names, runs, strict=True)
  ]
  columns = dict.fromkeys(name for row in rows for name in row)
  return [{name: row.get(name) for name in columns} for row in rows]


def write_comparison(workdirs: list[Path]) -> tuple[Path, list[list[str]]]:
  """Writes comparison.html in the first of several workdirs.

  Returns:
    the path of the page, and its table of the best evaluations: the names of
    the columns, and the cells of each row.

  Raises:
    UserError: a workdir has no run.
  """
  rows = gather(workdirs)
  runs = {row["run"]: path for row, path in zip(rows, workdirs, strict=True)}
  head = [n if "." in n else n.replace("_", " ") for n in rows[0]]
  cells = [[*map(page.printable, row.values())] for row in rows]
  incomparable = ("task", "data.unit", "data.source", "data.path")
  differing = [name for name in incomparable if name in rows[0]]
  best = {"head": head, "rows": cells, "differing": differing}
  top = page.Heading(
    "comparison", f"Comparison of {len(runs)} runs", ", ".join(runs)
  )
  path = workdirs[0] / "comparison.html"
  sections = [
    page.Section("Best evaluation of each run", "comparison", best),
    summary.curves(runs),
  ]
  page.write_page(path, " \u00b7 ".join(runs), top, sections)
  return path, [head, *cells]
