"""report: a page of what a run is, how it went and what it has learned.

report.html is one file, which opens anywhere and asks nothing of a network.
Beside other runs, comparison.html is written in the workdir of the first one.
"""

import copy
import csv
import io
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from seqrnn import config as configs
from seqrnn.config import Config
from seqrnn.data import midi, music
from seqrnn.data.corpora import SPLITS
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.inference.evaluation import evaluator
from seqrnn.inference.sampler import sample_music
from seqrnn.reporting import (
  alarms,
  charts,
  decisions,
  language,
  page,
  playground,
)
from seqrnn.reporting.page import Element, element, section
from seqrnn.reporting.subject import Subject, a, open_run, writer
from seqrnn.runtime import checkpoint, files, fileset, sharding
from seqrnn.training import changes
from seqrnn.training.history import read_rows

_PLAYGROUND = "playground.html"
_FRAMES = 64  # Of sampled music.
_TRIALS = 15  # Rows of a study's table.
_LIMIT = 2**27  # Bytes of a table.
# Figures that are shares.
_SHARES = ("accuracy", "macro_f1", "precision", "recall", "f1")
# What makes a model random as it trains.
_NOISE = (
  *("dropout", "variational_dropout", "recurrent_dropout", "weight_drop"),
  *("embedding_dropout", "zoneout_hidden", "zoneout_cell", "symbol_dropout"),
  "input_noise",
)

# What the pictures of a search show, by their names.
_PICTURES = {
  "history": "The loss of each trial, and the best so far",
  "curves": "The validation loss of each trial by step, coloured by its best",
  "parameters": "Each field that was searched, against the loss",
  "parallel": "A line a trial through the values of all fields, coloured by"
  " its loss",
  "importance": "The share of each field in the variance of the loss, and the"
  " first two together",
}


def lead(subject: Subject) -> list[Element]:
  """What the run is, in a few sentences."""
  config, experiment = subject.config, subject.experiment
  word, model = subject.word, config.model
  labels = experiment.labels
  count = 0 if labels is None else len(labels.symbols)
  alone = ""
  if model.heads == "all":
    alone = " Its forward head rests on what stands before alone, and writes."
  what = {
    "language_model": f"It reads {word}s and says which one comes next.",
    "gap_model": f"It says which {word} stands in a place, from what stands on"
    f" both sides of it.{alone}",
    "classification": f"It reads a text of {word}s and gives it one of"
    f" {count} labels.",
    "tagging": f"It gives each {word} of a text one of {count} tags.",
    "polyphony": "It reads music, and says for each of 88 notes whether it"
    " sounds in the next frame.",
  }.get(config.task, "")
  size = sum(leaf.size for leaf in jax.tree.leaves(subject.params))
  layers = f"{model.layers} layer{'s' * (model.layers > 1)}"
  read, caution = "", subject.caution
  if "train" in subject.facts:
    facts = subject.facts["train"]
    origin = f" ({facts['origin']})" if "origin" in facts else ""
    which = "The training split here" if subject.other else "Its training split"
    read = f" {which} has {facts['symbols']:,} {word}s{origin}."
  return [
    element("p", config.task.replace("_", " "), class_="eyebrow"),
    element("h1", subject.workdir.name),
    element(
      "p",
      f"{what} {layers} of {model.hidden_size} units ({model.cell}),"
      f" {size:,} parameters.{read} What follows is the checkpoint of step"
      f" {subject.step:,}.",
    ),
    *([element("p", element("strong", caution))] if caution else []),
  ]


def tiles(subject: Subject, figures: dict[str, dict[str, float]]) -> Element:
  """The figures that one asks for first."""
  target = subject.target
  names = {
    "bits_per_symbol": f"bits {a(target)}",
    "accuracy": f"of {target}s right",
    "macro_f1": "macro F1",
    "f1": "F1",
    "perplexity": "perplexity",
  }
  if subject.experiment.names is None:
    part = "note" if target == "frame" else target
    measure = subject.experiment.measure
    names = {"loss": measure, "accuracy": f"accuracy of {part}s"}
  split = next((name for name in reversed(SPLITS) if name in figures), "")
  found = [
    (_figure(name, figures[split][name]), f"{words}, {split} split")
    for name, words in names.items()
    if split and name in figures[split]
  ]
  timing = read_rows(subject.workdir / "timing.csv", "symbols_per_second")
  if timing:
    speeds = sorted(float(row["symbols_per_second"]) for row in timing)
    speed = charts.number(speeds[len(speeds) // 2])
    found.append((speed, f"{target}s a second, training"))
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


def _playground(subject: Subject) -> tuple[Element, str | None]:
  """The way to playground.html, and its content; or why there is none."""
  title = subject.workdir.absolute().name
  try:
    content = playground.made(
      subject.experiment, subject.params, subject.config, title
    )
  except UserError as reason:
    return element("p", f"No {reason}.", class_="muted"), None
  link = element("a", "Write with it", href=_PLAYGROUND)
  return element("p", link, " in a page of its own."), content


def _order(name: str) -> int:
  """Where a figure comes: loss, what is made of it, accuracy, the others."""
  first = ["loss", "bits_per_symbol", "perplexity", "accuracy"]
  return first.index(name) if name in first else len(first)


def _figure(name: str, value: float) -> str:
  return f"{value:.1%}" if name == "accuracy" else f"{value:.3f}"


def learned(subject: Subject, writes: Subject | None) -> list[Element]:
  """What can be said of this task, and of the language model in it."""
  experiment = subject.experiment
  if experiment.decoder is not None and not experiment.writes_text:
    return [pieces_of_music(subject)]
  if experiment.labels is not None:
    return decisions.sections(subject) if subject.facts else []
  made = []
  if experiment.fills_gaps and subject.facts:
    made.append(language.expectations(subject))
  return made + ([] if writes is None else language.sections(writes))


def pieces_of_music(subject: Subject) -> Element:
  """Piano rolls that were drawn, beside a held-out piece."""
  config = copy.deepcopy(subject.config)
  config.sample.length, config.sample.streams = _FRAMES, 1
  if "test" not in subject.facts:  # Where a prime is read.
    config.sample.prime = ""
  if len(config.sample.temperature) < 2:
    config.sample.temperature = (0.7, 1.0)
  made = sample_music(subject.experiment, subject.params, config)
  rolls = {
    f"Temperature {temperature:g}": notes_TV
    for temperature, notes_TV in zip(
      config.sample.temperature, made, strict=True
    )
  }
  prime, last = config.sample.prime, ""
  begun = f"sample.prime={prime!r}" if prime else "silence"
  if subject.facts:
    split = subject.splits[-1]
    piece = music.read(config.data)[split][0][:_FRAMES]
    rolls[f"A piece of the {split} split"] = piece
    last = f" The last one is of the {split} split, {subject.learned(split)}."
  return section(
    "What it plays",
    element(
      "p",
      "Each bar is a note that sounds; time goes from left to right. What has a"
      f" temperature was drawn note by note, from {begun} on.{last}",
    ),
    element(
      "div",
      [
        charts.roll(name, midi.held(notes_TV), len(notes_TV))
        for name, notes_TV in rolls.items()
      ],
      class_="grid",
    ),
  )


def evaluate(subject: Subject) -> tuple[dict[str, dict[str, float]], list[str]]:
  """The figures of each split, and which splits were not read to their end."""
  experiment = subject.experiment
  mesh = sharding.mesh()
  params = jax.device_put(subject.params, sharding.replicated(mesh))
  figures_of = evaluator(experiment, mesh)
  found, partial = {}, []
  for split in SPLITS:
    if split not in subject.facts:
      continue
    batches = subject.batches(split)
    if len(batches) < len(experiment.batches(split, 0)):
      partial.append(split)
    figures = figures_of(params, batches)
    assert figures is not None, "nothing stops this evaluation"
    found[split] = figures
  return found, partial


def results(
  subject: Subject, figures: dict[str, dict[str, float]], partial: list[str]
) -> Element:
  """The final figures of every split, and the checkpoints that are kept."""
  parts: list[Any] = ["Of the checkpoint, with nothing random in the model."]
  if "train" in figures and noisy(subject.trained):
    parts.append(
      " So those of the training split are not those of its curve, which is"
      " made with dropout and other noise."
    )
  if partial:
    parts.append(f" Of {' and '.join(partial)} a part was read.")
  shown = [element("p", parts)] if figures else []
  if subject.missing:
    shown.append(element("p", "; ".join(subject.missing), class_="muted"))
  if figures:
    names = sorted(next(iter(figures.values())), key=_order)
    shown.append(
      page.table(
        [
          "split",
          "documents",
          "symbols",
          *(n.replace("_", " ") for n in names),
        ],
        [
          [
            split,
            f"{subject.facts[split]['documents']:,}",
            f"{subject.facts[split]['symbols']:,}",
            *(f"{row[name]:.4f}" for name in names),
          ]
          for split, row in figures.items()
        ],
        aria_label="Figures of each split",
      )
    )
  directory = subject.workdir / "checkpoints"
  losses = {
    int(row["step"]): row["validation_loss"]
    for row in read_rows(subject.workdir / "metrics.csv", "validation_loss")
  }
  kept = []
  for step in checkpoint.steps(directory):
    damage = checkpoint.find_damage(directory / str(step))
    size = sum(
      entry.stat().st_size for entry in files.walk(directory / str(step))
    )
    kept.append(
      [
        f"{step:,}",
        losses.get(step, "between evaluations"),
        f"{size / 1e6:.1f} MB",
        damage or "intact",
        "shown here" if step == subject.step else "",
      ]
    )
  shown += [
    element("h3", "Checkpoints kept"),
    page.table(
      ["step", "validation loss", "size", "files", ""],
      kept,
      aria_label="Checkpoints",
    ),
  ]
  return section("Figures", shown)


def noisy(config: Config) -> bool:
  """Whether something is random in the model as it trains."""
  return any(config.model[name] for name in _NOISE)


def curves(
  runs: dict[str, Path], loss_unit: str = "", noise: bool = False
) -> Element:
  """How training went, by step: of one run, or of several over one another.

  Args:
    runs: name -> workdir.
    loss_unit: of the experiment; several may have one each.
    noise: whether something was random in the model of a single one.
  """
  alone = len(runs) == 1
  measured = {
    name: read_rows(path / "metrics.csv") for name, path in runs.items()
  }
  timed = {name: read_rows(path / "timing.csv") for name, path in runs.items()}
  if not any(measured.values()):
    words = "No evaluation has been made, so there is no curve."
    return section("Training", element("p", words))
  names = dict.fromkeys(
    column.removeprefix("validation_")
    for rows in measured.values()
    if rows
    for column in rows[0]
    if column.startswith("validation_") and column != "validation_perplexity"
  )

  def curve(tables, column):
    return {
      name: (
        [int(row["step"]) for row in rows],
        [float(row[column]) for row in rows],
      )
      for name, rows in tables.items()
      if rows and column in rows[0]
    }

  drawn = []
  for name in sorted(names, key=_order):
    words = name.replace("_", " ")
    shown = curve(measured, f"validation_{name}")
    if alone:
      parts = {"training": f"train_{name}", "validation": f"validation_{name}"}
      shown = {
        part: points
        for part, own in parts.items()
        for points in curve(measured, own).values()
      }
    unit = "from 0 to 1" if name in _SHARES else ""
    unit = "bits" if name == "bits_per_symbol" else unit
    unit = loss_unit if name.endswith("loss") else unit
    title = words if alone else f"{words}, validation"
    drawn.append(charts.lines(title.capitalize(), shown, "step", unit))
  for tables, column, title, unit in (
    (measured, "learning_rate", "Learning rate", "of the step"),
    (measured, "gradient_norm", "Gradient norm", "of all gradients together"),
    (timed, "symbols_per_second", "Speed", "symbols a second"),
  ):
    drawn.append(
      charts.lines(title, curve(tables, column), "step", unit, zero=True)
    )
  words = "Each point is an evaluation."
  if alone:
    words += " The line of training is the mean since the one before"
    words += ", with dropout and other noise." if noise else "."
  return section(
    "Training",
    element("p", words),
    element("div", drawn, class_="grid"),
  )


def settings(runs: dict[str, Config]) -> Element:
  """What differs from the defaults, of one run or of several side by side."""
  base = configs.defaults()
  every = {name: configs.flat(config) for name, config in runs.items()}
  fields = dict.fromkeys(name for own in every.values() for name in own)
  default = {} if base is None else configs.flat(base)
  several = len(runs) > 1

  def told(name):
    values = [own.get(name) for own in every.values()]
    if several:
      return any(value != values[0] for value in values)
    return base is None or values[0] != default.get(name)

  shown = [name for name in sorted(fields) if told(name)]
  words = (
    "Fields that differ between the runs."
    if several
    else "Fields that differ from configs/base.py; all others are its defaults."
  )
  rows = [
    [
      # It may be broken after its dots.
      [[part, element("wbr")] for part in re.findall(r"[^.]*\.|[^.]+", name)],
      *(_value(own.get(name)) for own in every.values()),
      *([] if base is None else [_value(default.get(name))]),
    ]
    for name in shown
  ]
  head = ["field", *(every if several else ["this run"])]
  return section(
    "Configuration",
    element("p", words if shown else "No field differs."),
    page.table(
      head + ([] if base is None else ["default"]),
      rows,
      class_="fields",
      aria_label="Fields of the configuration",
    )
    if shown
    else None,
  )


def changed(workdir: Path, config: Config) -> list[Element]:
  """Which fields changed while the run was trained; nothing where none did."""
  rows = [
    [f"{step:,}", name, _value(before), _value(after)]
    for step, name, before, after in changes.read(workdir, config)
  ]
  if not rows:
    return []
  return [
    section(
      "Changed in training",
      element("p", "Fields, and the step after which each had its new value."),
      page.table(
        ["step", "field", "before", "after"],
        rows,
        aria_label="Fields that changed in training",
      ),
    )
  ]


def _value(value: Any) -> str:
  if isinstance(value, tuple):
    return ", ".join(map(_value, value))
  if isinstance(value, bool) or value is None:
    return str(value).lower()
  return f"{value:.6g}" if isinstance(value, float) else str(value)


def study(workdir: Path) -> Element:
  """A search: its best trials and its pictures."""
  shown: list[Any] = []
  path = workdir / "trials.csv"
  if path.exists():
    content = files.read(path, _LIMIT).decode("utf-8", "replace")
    try:
      head, *rows = list(csv.reader(io.StringIO(content))) or [["trial"]]
      loss = head.index("loss") if "loss" in head else 0
      rows = [row for row in rows if len(row) == len(head)]
      ranked = sorted(
        (row for row in rows if row[loss]), key=lambda row: float(row[loss])
      )
    except (csv.Error, ValueError) as error:
      raise UserError(
        f"{path}: must be as --mode=search writes it ({error}); search again"
      ) from None
    left_out = {"seconds", "symbols", "evaluations", "error"}
    columns = [n for n, name in enumerate(head) if name not in left_out]
    shown += [
      element(
        "p",
        f"{len(rows)} trials, {len(ranked)} of them with a validation loss; the"
        f" best {min(len(ranked), _TRIALS)} by that loss:",
      ),
      page.table(
        [head[n] for n in columns],
        [[_short(row[n]) for n in columns] for row in ranked[:_TRIALS]],
        aria_label="Trials of the search",
      ),
    ]
  for name, description in _PICTURES.items():
    path = workdir / f"search-{name}.png"
    if path.exists():
      shown.append(page.picture(path, description))
  return section("Search", shown)


def _short(value: str) -> str:
  try:
    return f"{float(value):.5g}"
  except ValueError:
    return value


def compare(workdirs: list[Path]) -> Path:
  """Writes comparison.html in the first of several workdirs.

  Raises:
    UserError: one holds no run.
  """
  names = [workdir.name for workdir in workdirs]
  if len(set(names)) < len(names):
    names = [str(workdir) for workdir in workdirs]
  runs = dict(zip(names, workdirs, strict=True))
  base = configs.defaults()
  for workdir in workdirs:
    files.check_links(workdir)
  own = {name: configs.read_run(path, base) for name, path in runs.items()}
  rows = []
  columns: dict[str, None] = {}
  best = {}
  for name, workdir in runs.items():
    measured = read_rows(workdir / "metrics.csv", "validation_loss")
    if measured:
      best[name] = min(measured, key=lambda row: float(row["validation_loss"]))
      columns |= dict.fromkeys(
        column.removeprefix("validation_")
        for column in best[name]
        if column.startswith("validation_")
      )
  shown = sorted(columns, key=_order)
  for name in runs:
    row = best.get(name, {})
    figures = [row.get(f"validation_{name}") for name in shown]
    rows.append(
      [
        name,
        own[name].task.replace("_", " "),
        row.get("step", "not evaluated"),
        *("" if figure is None else _short(figure) for figure in figures),
      ]
    )
  path = workdirs[0] / "comparison.html"
  page.write(
    path,
    " · ".join(names),
    [
      element("p", "comparison", class_="eyebrow"),
      element("h1", f"{len(runs)} runs side by side"),
      element("p", ", ".join(names)),
    ],
    [
      section(
        "Best evaluation",
        element("p", "Of each run, by validation loss.", _apart(runs, own)),
        page.table(
          [
            "run",
            "task",
            "step",
            *(name.replace("_", " ") for name in shown),
          ],
          rows,
          aria_label="The best evaluation of each run",
        ),
      ),
      curves(runs),
      settings(own),
    ],
  )
  return path


def _apart(runs: dict[str, Path], configs_of: dict[str, Config]) -> str:
  """Why the losses of runs do not compare their models; "": they do."""
  differing = []
  for name in ("task", "data.unit", "data.validation_path"):
    values = {configs.flat(own).get(name) for own in configs_of.values()}
    if len(values) > 1:
      differing.append(name)
  checksums = set()
  for path in runs.values():
    with suppress(UserError):  # Its curves are shown, whatever it has kept.
      newest = str(checkpoint.newest(path / "checkpoints"))
      if newest != "0":
        position = checkpoint.read_position(path / "checkpoints" / newest)
        checksums.add(position.get("crc32"))
  if len(checksums) > 1:
    differing.append("the training data")
  if not differing:
    return ""
  return (
    f" The runs differ in {', '.join(differing)}, so that their losses are not"
    " of the same thing."
  )


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Path:
  """Writes report.html, or comparison.html beside other runs.

  Returns:
    the page.

  Raises:
    UserError: no run is there, or none that can be read.
  """
  if config.report.beside:
    others = [Path(part) for part in config.report.beside.split(",")]
    path = compare([workdir, *others])
    print(path)
    return path
  played = None
  sections: list[Element] = []
  top: Any = [
    element("p", "search", class_="eyebrow"),
    element("h1", workdir.name),
    element("p", f"Hyperparameters of a {config.task.replace('_', ' ')}."),
  ]
  if (workdir / "config.json").exists():
    subject = open_run(build, config, workdir)
    figures, partial = evaluate(subject)
    top = [*lead(subject), tiles(subject, figures)]
    writes = writer(build, subject)
    if writes is not None:
      link, played = _playground(writes)
      top.append(link)
    sections += [
      *learned(subject, writes),
      *alarms.sections(workdir, subject.step),
      curves(
        {workdir.name: workdir},
        subject.experiment.loss_unit,
        noisy(subject.trained),
      ),
      results(subject, figures, partial),
      settings({workdir.name: subject.trained}),
      *changed(workdir, subject.trained),
    ]
  if (workdir / "search.json").exists():
    sections.append(study(workdir))
  path = workdir / "report.html"
  with fileset.results(workdir, "report", "reported") as folder:
    if played is not None:
      with files.atomic_write(folder / _PLAYGROUND) as file:
        file.write(played)
    page.write(folder / path.name, workdir.name, top, sections)
  print(path)
  return path
