"""report: writes a page about a run's settings, training and predictions.

report.html is a single file and loads nothing from a network. For several
workdirs, comparison.html in the first one compares the runs instead.
"""

from collections.abc import Callable
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from seqrnn.config.read import Config, read_run
from seqrnn.errors import UserError
from seqrnn.experiment import Build
from seqrnn.modes import load_model
from seqrnn.reporting import (
  alarms,
  gathering,
  language,
  page,
  playground,
  summary,
)
from seqrnn.reporting.page import Section
from seqrnn.reporting.subject import Subject, subject_of, writer
from seqrnn.runtime import files
from seqrnn.runtime.console import console as make_console

# The sections that a task may name in its `report`.
SECTIONS: dict[str, Callable[[Subject], list[Section]]] = {
  "decisions": language.labels,
  "gaps": language.gaps,
  "mistakes": language.mistakes,
  "writing": language.writing,
}
_PLAYGROUND = "playground.html"
_PRINTED = "state", "step", "validation loss"


def run(build: Build, config: Config, workdir: Path) -> Path:
  """Writes report.html, or comparison.html of workdirs with commas.

  Returns:
    the path of the page.

  Raises:
    UserError: there is no run, or it cannot be read.
  """
  if not workdir.exists():
    return _compare([Path(path) for path in str(workdir).split(",")])
  run = load_model(build, config, workdir, "report")
  subject = subject_of(workdir, config, *run)
  model, best = writer(subject), gathering.best_evaluation(workdir)
  top = summary.heading(subject, best.figures)
  flagged, anomalies = alarms.read_anomalies(workdir)
  top = top._replace(tiles=[*flagged, *(top.tiles or [])])
  names = subject.experiment.report.sections
  sections = [
    *anomalies,
    *(part for name in names for part in SECTIONS[name](subject)),
    summary.curves(
      {workdir.name: workdir}, subject.experiment.loss_unit, subject.target
    ),
    summary.metrics(subject, best.step, best.figures),
    summary.settings(read_run(workdir)),
  ]
  path = workdir / "report.html"
  with files.locked_results(workdir, "report") as folder:
    if model is not None:
      reason = _write_playground(model, folder)
      name = "" if reason else _PLAYGROUND
      top = top._replace(playground=name, reason=reason)
    page.write_page(folder / path.name, workdir.name, top, sections)
  print(path)
  if (workdir / _PLAYGROUND).exists():
    print(workdir / _PLAYGROUND)
  return path


def _compare(workdirs: list[Path]) -> Path:
  """Writes comparison.html of several workdirs, and prints a table."""
  path, table = gathering.write_comparison(workdirs)
  head, *rows = table
  # The page has a column for each field; the terminal has one for all.
  fields = slice(1, head.index("state"))
  shown = [i for i, name in enumerate(head) if name in _PRINTED]
  printed = Table("run", "fields", *(head[i] for i in shown), box=box.SIMPLE)
  for row in rows:
    pairs = map("=".join, zip(head[fields], row[fields], strict=True))
    cells = row[0], "\n".join(pairs), *(row[i] for i in shown)
    printed.add_row(*map(escape, cells))
  make_console().print(printed)
  print(path)
  return path


def _write_playground(model: Subject, folder: Path) -> str:
  """Writes playground.html; returns the reason if it cannot, else ""."""
  title = model.workdir.absolute().name
  try:
    content = playground.build(
      model.experiment, model.params, model.config, title
    )
  except UserError as reason:
    return str(reason)
  files.write(folder / _PLAYGROUND, content)
  return ""
