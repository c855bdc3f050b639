"""Sections of a report on the settings of a run and on its metrics."""

from typing import Any

import jax

from seqrnn.data.corpora import SPLITS
from seqrnn.inference.evaluation import evaluator
from seqrnn.reporting import charts, page
from seqrnn.reporting.curves import ordered
from seqrnn.reporting.page import Element, element, section
from seqrnn.reporting.subject import Subject
from seqrnn.runtime import checkpoint, files, sharding
from seqrnn.settings.config import Config
from seqrnn.training import started
from seqrnn.training.history import read_rows

# Fields of the model that make it random in training.
_NOISE = (
  *("dropout", "variational_dropout", "recurrent_dropout", "weight_drop"),
  *("symbol_dropout", "input_noise"),
)

Figures = dict[str, dict[str, float]]  # Split -> name -> value.


def lead(subject: Subject) -> list[Element]:
  """The title of the page, and the run in a few sentences."""
  config, model = subject.config, subject.config.model
  labels = subject.experiment.labels
  count = 0 if labels is None else len(labels.symbols)
  about = subject.experiment.report.about
  what = about.format(word=subject.word, count=count)
  size = sum(leaf.size for leaf in jax.tree.leaves(subject.params))
  layers = f"{model.layers} layer{'s' * (model.layers > 1)}"
  read, began, caution = "", "", subject.caution
  start = started.read(subject.workdir)
  if "train" in subject.facts:
    facts = subject.facts["train"]
    origin = f" ({facts['origin']})" if "origin" in facts else ""
    which = "The training split here" if subject.other else "Its training split"
    read = f" {which} has {facts['symbols']:,} {subject.word}s{origin}."
  if start is not None:
    began = (
      f" It started from parts of {start.workdir}, step {start.step:,}:"
      f" {', '.join(start.parts)}."
    )
  return [
    element("p", config.task.replace("_", " "), class_="eyebrow"),
    element("h1", subject.workdir.name),
    element(
      "p",
      f"{what} {layers} of {model.hidden_size} units ({model.cell}),"
      f" {size:,} parameters.{read}{began} This page shows the checkpoint of"
      f" step {subject.step:,}.",
    ),
    *([element("p", element("strong", caution))] if caution else []),
  ]


def tiles(subject: Subject, figures: Figures) -> Element:
  """The most important metrics of the last evaluated split."""
  target = subject.target
  names = {
    "bits_per_symbol": f"bits per {target}",
    "accuracy": f"accuracy of {target}s",
    "macro_f1": "macro F1",
    "f1": "F1",
    "perplexity": "perplexity",
  }
  if subject.experiment.names is None:
    part = "note" if target == "frame" else target
    measure = subject.experiment.measure
    names = {"loss": measure, "accuracy": f"accuracy of {part}s"}
  found = []
  if figures:
    split, row = list(figures.items())[-1]
    for name, words in names.items():
      if name in row:
        form = ".1%" if name == "accuracy" else ".3f"
        found.append((format(row[name], form), f"{words}, {split} split"))
  timing = read_rows(subject.workdir / "timing.csv", "symbols_per_second")
  if timing:
    speeds = sorted(float(row["symbols_per_second"]) for row in timing)
    speed = charts.number(speeds[len(speeds) // 2])
    found.append((speed, f"{target}s per second in training"))
  return element(
    "div",
    [
      element(
        "div", element("strong", value), element("span", name), class_="tile"
      )
      for value, name in found
    ],
    class_="tiles",
  )


def evaluate(subject: Subject) -> tuple[Figures, list[str]]:
  """The metrics of each split, and the splits that were read only in part."""
  experiment = subject.experiment
  mesh = sharding.mesh()
  params = jax.device_put(subject.params, sharding.replicated(mesh))
  evaluate_batches = evaluator(experiment, mesh)
  found, partial = {}, []
  for split in SPLITS:
    if split not in subject.facts:
      continue
    batches = subject.batches(split)
    if len(batches) < len(experiment.batches(split, None)):
      partial.append(split)
    figures = evaluate_batches(params, batches)
    assert figures is not None, "nothing stops this evaluation"
    found[split] = figures
  return found, partial


def results(subject: Subject, figures: Figures, partial: list[str]) -> Element:
  """The metrics of each split, and the checkpoints of the run."""
  parts: list[Any] = []
  if figures:
    words = "Metrics of the checkpoint, evaluated deterministically."
    if "train" in figures and noisy(subject.trained):
      words += (
        " The training curve differs, because it was measured with dropout or"
        " other noise."
      )
    if partial:
      words += f" Only a part of {' and '.join(partial)} was read."
    parts.append(element("p", words))
  if subject.missing:
    parts.append(element("p", "; ".join(subject.missing), class_="muted"))
  if figures:
    names = ordered(next(iter(figures.values())))
    counts = ("documents", "symbols")
    parts.append(
      page.table(
        ["split", *counts, *(n.replace("_", " ") for n in names)],
        [
          [
            split,
            *(f"{subject.facts[split][name]:,}" for name in counts),
            *(f"{row[name]:.4f}" for name in names),
          ]
          for split, row in figures.items()
        ],
        "Metrics of each split",
      )
    )
  return section("Metrics", parts, _checkpoints(subject))


def _checkpoints(subject: Subject) -> list[Element]:
  """A table of the checkpoints of the run."""
  directory = subject.workdir / "checkpoints"
  losses = {
    int(row["step"]): row["validation_loss"]
    for row in read_rows(subject.workdir / "metrics.csv", "validation_loss")
  }
  rows = []
  for step in checkpoint.steps(directory):
    path = directory / str(step)
    size = sum(entry.stat().st_size for entry in files.walk(path))
    rows.append(
      [
        f"{step:,}",
        losses.get(step, "between evaluations"),
        f"{size / 1e6:.1f} MB",
        checkpoint.find_damage(path) or "intact",
        "shown here" if step == subject.step else "",
      ]
    )
  head = ["step", "validation loss", "size", "files", ""]
  return [
    element("h3", "Checkpoints"),
    page.table(head, rows, "Checkpoints"),
  ]


def noisy(config: Config) -> bool:
  """Whether the model is random in training."""
  return any(config.model[name] for name in _NOISE)
