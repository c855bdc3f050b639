"""The model card beside an exported model, in Markdown."""

import json
from pathlib import Path
from typing import Any

import jax

from seqrnn import catalogue
from seqrnn.config import read as config_lib
from seqrnn.config.read import TRAINING, Config
from seqrnn.experiment import Experiment, shapes
from seqrnn.runtime import files
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
_CARD = """\
# {name}

A model of task={config.task}, trained with seqrnn: {count:,} parameters in
{config.model.layers} layers of {config.model.hidden_size} units
({config.model.cell}). These are the parameters of step
{config.checkpoint.step}.

## Data

{data}

## Figures

{figures}

## Use

- `model.safetensors` has tensors with the names and the order of gates of
  torch.nn; its metadata have the arguments of the layers.
- `model.onnx` is a graph of native operators, as onnxruntime reads it.
- `vocabulary.json`: id n + 4 is entry n of `symbols`; 0 is padding, 1 the begin
  of a document, 2 its end, 3 unknown. Label n is entry n of
  `labels`.
- seqrnn's page "Use a model in PyTorch or without JAX" has code that loads the
  files.

## Limits

- The model knows the symbols of its training data only; another symbol is read
  as unknown.
- `vocabulary.json` has the symbols of the training data as they are, of a log
  the templates of its lines.
- Probabilities are those of the training data; on other data they are not
  calibrated.
- The file has float32; a model that was trained with
  `model.products=bfloat16` has outputs that differ in the third digit.

## Settings that differ from the defaults

```text
{settings}
```
"""


def card(experiment: Experiment, config: Config, workdir: Path) -> str:
  """The text of the card.

  Args:
    experiment: the task.
    config: of the run; `checkpoint.step` is the step of the checkpoint.
    workdir: of the run.
  """
  points = lambda lines: "\n".join(f"- {line}" for line in lines)
  changes = config_lib.differences(config_lib.defaults(), config, TRAINING)
  return _CARD.format(
    name=workdir.absolute().name,
    config=config,
    count=sum(leaf.size for leaf in jax.tree.leaves(shapes(experiment))),
    data=points(_data(config, workdir)),
    figures=points(_figures(workdir, config.checkpoint.step)),
    settings="\n".join(changes),
  )


def _data(config: Config, workdir: Path) -> list[str]:
  source, unit = config.data.source, config.data.unit
  known = catalogue.sets().get(source)
  if known is None:
    about = _BUILT_IN.get(source, "terms: not known to this program")
    lines = [f"`{source}`: {about}; unit: {unit}"]
  else:
    lines = [
      f"`{source}`: {known.what}; unit: {unit}",
      f"terms: {known.terms}",
      f"cite: {known.cite}",
    ]
  start = transfer.read(workdir)
  if start is not None:
    lines.append(
      f"it was not trained from nothing: {', '.join(start.parts)} are from"
      f" {start.workdir}, step {start.step}"
    )
  return lines


def _figures(workdir: Path, step: int) -> list[str]:
  """The figures of validation at a step, and those of the last evaluation."""
  figures: dict[str, Any] = {}
  for row in read_rows(workdir / "metrics.csv"):
    if int(row["step"]) == step:
      figures |= {
        name: float(value)
        for name, value in row.items()
        if name.startswith("validation_")
      }
  path = workdir / "evaluation.json"
  if path.exists():
    record: Any = files.read_json(path, _LIMIT)
    if record.pop("step", None) == step:
      split = record.pop("split")
      counts = ("documents", "symbols", "crc32")
      figures |= {
        f"{split}_{name}": value
        for name, value in record.items()
        if name not in counts and isinstance(value, int | float)
      }
  lines = [f"{name.replace('_', ' ')}: {x:.4f}" for name, x in figures.items()]
  if not any(line.startswith("test ") for line in lines):
    lines.append("test: not evaluated (`--mode=evaluate`)")
  return lines


def encoded_config(config: Config) -> bytes:
  """The fields of the training, as a config in JSON."""
  fields = {
    name: value
    for name, value in config_lib.flat(config).items()
    if name.startswith((*TRAINING, "checkpoint.step"))
  }
  text = json.dumps(config_lib.nested(fields), indent=2) + "\n"
  return text.encode()
