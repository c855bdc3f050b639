"""Gathers several runs in a table: fields that differ, and their figures.

comparison.html shows the table, beside the curves of the runs.
"""

import glob
import os
import sys
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.errors import UserError, visible
from seqrnn.reporting import page, summary
from seqrnn.runtime import checkpoint, files
from seqrnn.table import Table, without_shared
from seqrnn.training.history import read_rows
from seqrnn.training.position import Position, limits_reached

SPLITS = ("train", "validation", "test")
_DERIVED = ("bits_per_symbol", "perplexity")  # They follow from the loss.
_LIMIT = 2**20  # Bytes of evaluation.json.


def find(
  paths: Iterable[str | os.PathLike],
) -> tuple[list[Path], frozenset[Path]]:
  """Finds the workdirs that paths and patterns name.

  A pattern, such as `runs/*`, may also match folders that have no run. The
  workdir of a search stands for those of its trials.

  Returns:
    the workdirs, each once, and those among them that only patterns name.

  Raises:
    UserError: a pattern matches no run.
  """
  named, matched = {}, {}
  for given in paths:
    path = os.path.expanduser(given)
    found = files.matching_runs(path)
    if found == [path] and _is_search(path):
      found = files.matching_runs(
        os.path.join(glob.escape(path), "trials", "*")
      )
    (named if found == [path] else matched).update(dict.fromkeys(found))
  workdirs = dict.fromkeys(map(Path, named | matched))
  return list(workdirs), frozenset(map(Path, matched.keys() - named.keys()))


def _is_search(path: str) -> bool:
  """Whether a folder has a search, and no run of its own."""
  names = "config.json", "search.json"
  return [os.path.exists(os.path.join(path, x)) for x in names] == [False, True]


def read(workdir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads a run's fields, and its figures of the best evaluation.

  Returns:
    the fields by their dotted names; and `state`, `step`, then SPLIT_FIGURE
    of each split. The figures are those of the lowest validation loss, and of
    evaluation.json if that is of the same step. Before the first evaluation
    there is only the state.

  Raises:
    UserError: there is no run, or a file of it is damaged.
  """
  files.check_links(workdir)
  config = config_lib.read_run(workdir)
  rows = read_rows(workdir / "metrics.csv", "validation_loss")
  state = _state(workdir, config)
  if not rows:
    return config_lib.flat(config), {"state": state}
  best = min(rows, key=lambda row: float(row["validation_loss"]))
  step = int(best["step"])
  figures: dict[str, Any] = {"state": state, "step": step}
  names = summary.ordered(summary.validation_figures(best))
  evaluated = _evaluation(workdir / "evaluation.json", step)
  for name in names:
    for split in SPLITS:
      column = f"{split}_{name}"
      if column in best:
        figures[column] = float(best[column])
      elif split == evaluated.get("split") and name in evaluated:
        figures[column] = evaluated[name]
  return config_lib.flat(config), figures


def _state(workdir: Path, config: Config) -> str:
  """Whether a run has finished, is running, or where it was stopped."""
  saved = checkpoint.steps(workdir / "checkpoints")
  step = saved[-1] if saved else 0
  with suppress(UserError, OSError, TypeError):  # A damaged checkpoint.
    folder = workdir / "checkpoints" / str(step)
    position = Position(**checkpoint.read_position(folder))
    if limits_reached(config, position):
      return "finished"
  path = workdir / "lock"
  with suppress(OSError):  # The folder may be read-only.
    if path.exists():
      held = files.lock(path)
      if held is None:
        return "running"
      held.close()
  return f"stopped at step {step}"


def _evaluation(path: Path, step: int) -> dict[str, Any]:
  """The content of evaluation.json; {} if it is missing or of another step.

  Raises:
    UserError: the file is not as --mode=evaluate writes it.
  """
  if not path.exists():
    return {}
  found = files.read_json(path, _LIMIT)
  if not isinstance(found, dict):
    raise UserError(f"{path}: must be an object; evaluate the run again")
  return found if found.get("step") == step else {}


def gather(workdirs: Sequence[Path], optional: Container[Path] = ()) -> Table:
  """A table with a row for each run.

  Its columns are `run`, the name; the fields that differ between the runs, of
  those that training depends on; and `state`, `step` and the figures of `read`,
  with those that follow from the loss last.

  Args:
    workdirs: of the runs.
    optional: workdirs that are left out if they cannot be read, with a warning
      on stderr.

  Raises:
    UserError: as `read`.
  """
  found = {}
  for workdir in workdirs:
    try:
      found[workdir] = read(workdir)
    except (UserError, OSError) as error:
      if workdir not in optional:
        raise
      print(f"warning: left out, {visible(str(error))}", file=sys.stderr)
  if not found:
    raise UserError(f"{workdirs[0]}: no run can be read")
  runs = list(found.values())
  names = [workdir.absolute().name for workdir in found]
  if len(set(names)) < len(names):
    names = list(map(str, found))
  prefixes = (*config_lib.IDENTITY, *config_lib.LIMITS)
  fields = [
    field
    for field in dict.fromkeys(name for own, _ in runs for name in own)
    if field.startswith(prefixes)
    and any(own.get(field) != runs[0][0].get(field) for own, _ in runs)
  ]
  rows = [
    {
      "run": name,
      **{field: own.get(field) for field in fields},
      "state": figures.get("state"),
      "step": figures.get("step"),
      **figures,
    }
    for name, (own, figures) in zip(names, runs, strict=True)
  ]
  table = Table.of_rows(rows)
  order = ["run", *fields, "state", "step"]
  names = summary.ordered(_figures(table))
  for name in sorted(names, key=lambda name: name in _DERIVED):
    columns = [f"{split}_{name}" for split in SPLITS]
    order += [column for column in columns if column in table]
  return Table({name: table[name] for name in order})


def without_derived(table: Table) -> Table:
  """The table without the figures that follow from the loss."""
  return Table(
    {n: table[n] for n in table.names if n.partition("_")[2] not in _DERIVED}
  )


def _figures(rows: Table) -> list[str]:
  """The names of the figures in a table, without their splits."""
  parts = [name.partition("_") for name in rows.names]
  return list(dict.fromkeys(x for split, _, x in parts if split in SPLITS))


def write(workdirs: list[Path]) -> tuple[Path, Table]:
  """Writes comparison.html in the first of several workdirs.

  Returns:
    the path of the page, and its table of the best evaluations.

  Raises:
    UserError: a workdir has no run.
  """
  table = gather(workdirs)
  labels = without_shared(table["run"].tolist())
  runs = dict(zip(labels, workdirs, strict=True))
  configs = {name: config_lib.read_run(path) for name, path in runs.items()}
  cells = table.cells()
  step = table.names.index("step")
  for row, label in zip(cells, labels, strict=True):
    row[0] = label
    row[step] = row[step] or "not evaluated"
  best = page.section(
    "Best evaluation of each run",
    "comparison",
    head=[n if "." in n else n.replace("_", " ") for n in table.names],
    rows=cells,
    differing=_differing(workdirs, [*configs.values()]),
  )
  top = {
    "eyebrow": "comparison",
    "heading": f"Comparison of {len(runs)} runs",
    "text": ", ".join(runs),
  }
  path = workdirs[0] / "comparison.html"
  sections = [best, summary.curves(runs), summary.settings(configs)]
  page.write(path, " \u00b7 ".join(runs), top, sections)
  return path, table


def _differing(workdirs: list[Path], configs: list[Config]) -> list[str]:
  """The reasons for which the losses of the runs are not comparable."""
  differing = [
    field
    for field in ("task", "data.unit", "data.validation_path")
    if len({config_lib.flat(config).get(field) for config in configs}) > 1
  ]
  checksums = set()
  for path in workdirs:
    with suppress(UserError):  # A damaged checkpoint must not prevent the page.
      newest = str(checkpoint.newest(path / "checkpoints"))
      if newest != "0":
        position = checkpoint.read_position(path / "checkpoints" / newest)
        checksums.add(position.get("crc32"))
  if len(checksums) > 1:
    differing.append("the training data")
  return differing
