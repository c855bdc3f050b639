"""history.png: loss and accuracy of training and validation, by step."""

import csv
from pathlib import Path


def draw(workdir: Path):
  """Draws metrics.csv of a run; nothing where it has no row yet."""
  path = workdir / "metrics.csv"
  if not path.exists():
    return
  with path.open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  if not rows:
    return

  # It takes a second to import, and no screen is needed.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 3.5), layout="constrained")
  FigureCanvasAgg(figure)
  steps = [int(row["step"]) for row in rows]
  panels = (("loss", "loss in nats a symbol"), ("accuracy", "accuracy"))
  for place, (name, label) in enumerate(panels, 1):
    axes = figure.add_subplot(1, 2, place)
    for split in ("train", "validation"):
      values = [float(row[f"{split}_{name}"]) for row in rows]
      axes.plot(
        steps, values, label=split, marker="." if len(rows) < 40 else ""
      )
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.legend()
    axes.grid(alpha=0.3)
  figure.suptitle(workdir.name)
  figure.savefig(workdir / "history.png", dpi=110)
