"""A page that compares several runs side by side."""

from contextlib import suppress
from pathlib import Path

from seqrnn import config as config_lib
from seqrnn.config import Config
from seqrnn.errors import UserError
from seqrnn.reporting import page
from seqrnn.reporting.curves import curves, ordered, validation_figures
from seqrnn.reporting.fields import settings
from seqrnn.reporting.page import Element, element, section
from seqrnn.reporting.trials import short
from seqrnn.runtime import checkpoint, files
from seqrnn.training.history import read_rows


def write(workdirs: list[Path]) -> Path:
  """Writes comparison.html in the first of several workdirs.

  Raises:
    UserError: a workdir has no run.
  """
  names = [workdir.name for workdir in workdirs]
  if len(set(names)) < len(names):
    names = [str(workdir) for workdir in workdirs]
  runs = dict(zip(names, workdirs, strict=True))
  base = config_lib.defaults()
  for workdir in workdirs:
    files.check_links(workdir)
  configs = {
    name: config_lib.read_run(path, base) for name, path in runs.items()
  }
  path = workdirs[0] / "comparison.html"
  page.write(
    path,
    " · ".join(names),
    [
      element("p", "comparison", class_="eyebrow"),
      element("h1", f"Comparison of {len(runs)} runs"),
      element("p", ", ".join(names)),
    ],
    [_best(runs, configs), curves(runs), settings(configs)],
  )
  return path


def _best(runs: dict[str, Path], configs: dict[str, Config]) -> Element:
  """The evaluation of each run that has the lowest validation loss."""
  best = {}
  for name, workdir in runs.items():
    rows = read_rows(workdir / "metrics.csv", "validation_loss")
    loss = lambda row: float(row["validation_loss"])
    best[name] = min(rows, key=loss) if rows else {}
  figures = ordered(
    dict.fromkeys(
      name for row in best.values() for name in validation_figures(row)
    )
  )
  return section(
    "Best evaluation",
    element(
      "p",
      "The evaluation of each run with the lowest validation loss.",
      _differing(runs, configs),
    ),
    page.table(
      ["run", "task", "step", *(name.replace("_", " ") for name in figures)],
      [
        [
          name,
          configs[name].task.replace("_", " "),
          row.get("step", "not evaluated"),
          *(short(row.get(f"validation_{figure}", "")) for figure in figures),
        ]
        for name, row in best.items()
      ],
      "The best evaluation of each run",
    ),
  )


def _differing(runs: dict[str, Path], configs: dict[str, Config]) -> str:
  """Why the losses of the runs are not comparable; "" if they are."""
  differing = []
  for field in ("task", "data.unit", "data.validation_path"):
    if len({config_lib.flat(own).get(field) for own in configs.values()}) > 1:
      differing.append(field)
  checksums = set()
  for path in runs.values():
    with suppress(UserError):  # A damaged checkpoint must not prevent the page.
      newest = str(checkpoint.newest(path / "checkpoints"))
      if newest != "0":
        position = checkpoint.read_position(path / "checkpoints" / newest)
        checksums.add(position.get("crc32"))
  if len(checksums) > 1:
    differing.append("the training data")
  if not differing:
    return ""
  return (
    f" The runs differ in {', '.join(differing)}, so their losses are"
    " not comparable."
  )
