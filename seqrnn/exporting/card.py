"""The model card beside an exported model, in Markdown."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn import catalogue
from seqrnn.experiment import Experiment
from seqrnn.exporting.network import Network
from seqrnn.runtime import files
from seqrnn.settings import config as config_lib
from seqrnn.settings.config import TRAINING, Config
from seqrnn.training import transfer
from seqrnn.training.history import read_rows

_LIMIT = 2**20  # Bytes of evaluation.json.
_PYTHON = "terms: the licence of Python (PSF)"
_BUILT_IN = {
  "stdlib": f"the sources of the Python standard library; {_PYTHON}",
  "opcodes": f"opcodes of the Python standard library; {_PYTHON}",
  "topics": f"the topics of Python's help; {_PYTHON}",
  "packages": "modules of installed packages; terms: those of each package",
  "names": "surnames that the package faker draws; terms: MIT",
  "chords": "synthetic four-part music, made by rules; no terms",
  "files": "files of the user's; terms: not known to this program, add them",
}


def card(
  network: Network,
  experiment: Experiment,
  config: Config,
  workdir: Path,
  use: list[str],
) -> str:
  """The text of the card.

  Args:
    network: the parts of the model.
    experiment: its task.
    config: of the run; `checkpoint.step` is the step of the checkpoint.
    workdir: of the run.
    use: lines on how to use the file.
  """
  model, step = config.model, config.checkpoint.step
  layers = next(iter(network.stacks.values()))
  count = sum(
    array.size
    for array in (
      *(x for x in [network.embedding_VD] if x is not None),
      *(x for pair in network.heads.values() for x in pair[network.tied :]),
      *(
        array
        for stack in network.stacks.values()
        for ways in stack
        for way in ways
        for array in way
        if isinstance(array, np.ndarray)
      ),
    )
  )
  way = "both directions" if network.two_ways else "one direction"
  lines = [
    f"# {workdir.absolute().name}",
    "",
    f"A model of the task {config.task.replace('_', ' ')}: {len(layers)}"
    f" layer{'s' * (len(layers) > 1)}"
    f" of {model.hidden_size} units ({model.cell}) that read in {way},"
    f" {count:,} numbers in the file. It was trained with seqrnn; these are the"
    f" parameters of step {step}.",
    "",
    *_section("Data", _data(config, workdir)),
    *_section("Vocabulary", _vocabularies(experiment)),
    *_section("Figures", _figures(workdir, step)),
    *_section("Use", use),
    *_section("Limits", _limits(network, config)),
    "## Settings that differ from the defaults",
    "",
    "```text",
    *config_lib.differences(config_lib.defaults(), config, TRAINING),
    "```",
  ]
  return "\n".join(lines) + "\n"


def _section(title: str, points: list[str]) -> list[str]:
  return [f"## {title}", "", *(f"- {point}" for point in points), ""]


def _data(config: Config, workdir: Path) -> list[str]:
  source, unit = config.data.source, config.data.unit
  found = catalogue.sets().get(source)
  if found is None:
    about = _BUILT_IN.get(source, "terms: not known to this program")
    points = [f"`{source}`: {about}; unit: {unit}"]
  else:
    points = [
      f"`{source}`: {found.what}; unit: {unit}",
      f"terms: {found.terms}",
      f"cite: {found.cite}",
    ]
  start = transfer.read(workdir)
  if start is not None:
    points.append(
      f"it was not trained from nothing: {', '.join(start.parts)} are from"
      f" {start.workdir}, step {start.step}"
    )
  return points


def _vocabularies(experiment: Experiment) -> list[str]:
  points = []
  for name, known in experiment.vocabularies.items():
    if name == "labels":
      points.append(
        f"{len(known.symbols):,} labels: output n is entry n of `labels`"
      )
    else:
      points.append(
        f"{len(known.symbols):,} {name}: id n + 4 is entry n of `{name}`;"
        " 0 is padding, 1 the begin of a document, 2 its end, 3 unknown"
      )
  return points or ["none: inputs are frames of notes"]


def _figures(workdir: Path, step: int) -> list[str]:
  """The figures of validation at a step, and those of the last evaluation."""
  points = []
  for row in read_rows(workdir / "metrics.csv"):
    if int(row["step"]) == step:
      points += [
        f"{name.replace('_', ' ', 1).replace('_', ' ')}: {float(value):.4f}"
        for name, value in row.items()
        if name.startswith("validation_")
      ]
  path = workdir / "evaluation.json"
  if path.exists():
    record: Any = files.read_json(path, _LIMIT)
    if record.get("step") == step:
      skipped = ("step", "documents", "symbols", "crc32")
      points += [
        f"{record['split']} {name.replace('_', ' ')}: {value:.4f}"
        for name, value in record.items()
        if name not in skipped and isinstance(value, int | float)
      ]
  if not any(point.startswith("test ") for point in points):
    points.append("test: not evaluated (`--mode=evaluate`)")
  return points


def _limits(network: Network, config: Config) -> list[str]:
  points = [
    "The model knows the symbols of its training data only; another symbol is"
    " read as unknown.",
    "`vocabulary.json` has the symbols of the training data as they are, of a"
    " log the templates of its lines.",
  ]
  if network.gives == "softmax":
    points.append(
      "Probabilities are those of the training data; on other data they are"
      " not calibrated."
    )
  if config.model.products == "bfloat16":
    points.append(
      "It was trained with products of bfloat16; the file has float32, and"
      " outputs differ in the third digit."
    )
  if network.frames:
    points.append("Each note is drawn independently of the others.")
  return points


def encoded_config(config: Config) -> bytes:
  """The fields of the training, as a config in JSON."""
  fields = {
    name: value
    for name, value in config_lib.flat(config).items()
    if name.startswith((*TRAINING, "checkpoint.step"))
  }
  text = json.dumps(config_lib.nested(fields), indent=2) + "\n"
  return text.encode()
