"""report: writes a page about a run's settings, training and predictions.

report.html is a single file and loads nothing from a network. With
`report.beside`, comparison.html compares several runs instead.
"""

import os
from collections.abc import Callable
from pathlib import Path

from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.reporting import (
  alarms,
  comparison,
  curves,
  decisions,
  fields,
  language,
  music,
  page,
  playground,
  summary,
  trials,
)
from seqrnn.reporting.page import Element, element
from seqrnn.reporting.subject import Subject, open_run, writer
from seqrnn.runtime import files, fileset
from seqrnn.settings.config import Config

# The sections that a task may name in its `report`.
SECTIONS: dict[str, Callable[[Subject], list[Element]]] = {
  "decisions": decisions.sections,
  "gaps": language.gaps,
  "music": music.pieces,
  "writing": language.writing,
}
_PLAYGROUND = "playground.html"


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Path:
  """Writes report.html, or comparison.html if `report.beside` names runs.

  Returns:
    the path of the page.

  Raises:
    UserError: there is no run, or it cannot be read.
  """
  if config.report.beside:
    parts = config.report.beside.split(",")
    others = [Path(os.path.expanduser(part)) for part in parts]
    path, table = comparison.write([workdir, *others])
    print(table)
    print(path)
    return path
  model = None
  sections: list[Element] = []
  top = [
    element("p", "search", class_="eyebrow"),
    element("h1", workdir.name),
    element("p", f"Hyperparameters of a {config.task.replace('_', ' ')}."),
  ]
  if (workdir / "config.json").exists():
    subject = open_run(build, config, workdir)
    model = writer(subject)
    figures, partial = summary.evaluate(subject)
    top = [*summary.lead(subject), summary.tiles(subject, figures)]
    sections = [
      *alarms.sections(workdir, subject.step),
      *learned(subject),
      curves.curves(
        {workdir.name: workdir},
        subject.experiment.loss_unit,
        summary.noisy(subject.trained),
      ),
      summary.results(subject, figures, partial),
      fields.settings({workdir.name: subject.trained}),
    ]
  if (workdir / "search.json").exists():
    sections.append(trials.search(workdir))
  path = workdir / "report.html"
  with fileset.results(workdir, "report", "reported") as folder:
    if model is not None:
      top.append(_playground(model, folder))
    page.write(folder / path.name, workdir.name, top, sections)
  print(path)
  if (workdir / _PLAYGROUND).exists():
    print(workdir / _PLAYGROUND)
  return path


def learned(subject: Subject) -> list[Element]:
  """Returns the sections that show what the model has learned."""
  names = subject.experiment.report.sections
  return [part for name in names for part in SECTIONS[name](subject)]


def _playground(model: Subject, folder: Path) -> Element:
  """Writes playground.html; returns a link, or the reason why it is missing."""
  title = model.workdir.absolute().name
  try:
    content = playground.build(
      model.experiment, model.params, model.config, title
    )
  except UserError as reason:
    return element("p", f"No {reason}.", class_="muted")
  with files.atomic_write(folder / _PLAYGROUND) as file:
    file.write(content)
  link = element("a", "Write with it", href=_PLAYGROUND)
  return element("p", link, " on a page of its own.")
