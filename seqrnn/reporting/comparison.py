"""A page that compares several runs side by side."""

from contextlib import suppress
from pathlib import Path

from seqrnn.errors import UserError
from seqrnn.reporting import page
from seqrnn.reporting.curves import curves
from seqrnn.reporting.fields import settings
from seqrnn.reporting.gathering import gather
from seqrnn.reporting.page import Element, element, section
from seqrnn.runtime import checkpoint
from seqrnn.settings import config as config_lib
from seqrnn.settings.config import Config
from seqrnn.table import Table, without_shared


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
  path = workdirs[0] / "comparison.html"
  page.write(
    path,
    " · ".join(runs),
    [
      element("p", "comparison", class_="eyebrow"),
      element("h1", f"Comparison of {len(runs)} runs"),
      element("p", ", ".join(runs)),
    ],
    [
      _best(table, labels, _differing(runs, configs)),
      curves(runs),
      settings(configs),
    ],
  )
  return path, table


def _best(table: Table, labels: list[str], differing: str) -> Element:
  """The evaluation of each run that has the lowest validation loss."""
  cells = table.cells()
  step = table.names.index("step")
  for row, label in zip(cells, labels, strict=True):
    row[0] = label
    row[step] = row[step] or "not evaluated"
  return section(
    "Best evaluation of each run",
    element(
      "p",
      "The evaluation of each run with the lowest validation loss, and the"
      " fields that differ. The test split is that of --mode=evaluate.",
      differing,
    ),
    page.table(
      [
        name.replace("_", " ") if "." not in name else name
        for name in table.names
      ],
      cells,
      "The best evaluation of each run, and the fields that differ",
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
