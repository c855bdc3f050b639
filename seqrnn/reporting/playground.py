"""playground: a language model in one page, that writes on from a text.

The page holds the weights and the little JavaScript that runs them, and asks
for nothing else.
"""

import base64
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqrnn.config import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params
from seqrnn.models import cells
from seqrnn.models.network import CELLS
from seqrnn.runtime import files

_PAGE = Path(__file__).with_suffix(".html")
_LIMIT = 2**25  # Parameters: a page of 90 MB.


def write(experiment: Experiment, params: Params, config: Config, path: Path):
  """Writes the page of a language model.

  Raises:
    UserError: as `made`.
  """
  content = made(experiment, params, config, path.absolute().parent.name)
  with files.atomic_write(path) as file:
    file.write(content)


def made(
  experiment: Experiment, params: Params, config: Config, title: str
) -> str:
  """The page of a language model.

  Raises:
    UserError: the page cannot run this model; one line says why.
  """
  model = config.model
  if config.task != "language_model" or config.data.mapping != "many_to_many":
    raise UserError(
      f"playground: task={config.task!r} with"
      f" data.mapping={config.data.mapping!r}: must be a language model of"
      " many_to_many, which writes one symbol after the other"
    )
  if model.products != "float32":
    raise UserError(
      f"playground: model.products={model.products!r}: must be float32"
    )
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  if count > _LIMIT:
    raise UserError(
      f"playground: the model has {count:,} parameters: must be at most"
      f" {_LIMIT:,} to fit in a page"
    )
  symbols = experiment.vocabularies["symbols"]
  content = {
    "title": title,
    "about": (
      f"layers: {model.layers}, cell: {model.cell}, units of a layer:"
      f" {model.hidden_size}, parameters: {count:,}, symbols: {len(symbols)}"
    ),
    "unit": symbols.unit,
    "symbols": symbols.symbols,
    "boundaries": config.data.boundaries,
    "prime": config.sample.prime,
    "temperature": config.sample.temperature[0],
    "zoneout": [model.zoneout_hidden, model.zoneout_cell],
    "cell": _cell(model),
    **_weights(params, model),
  }
  # In HTML a script ends where "</script" stands, whatever the text around it.
  text = json.dumps(content).replace("<", "\\u003c")
  return _PAGE.read_text("utf-8").replace("MODEL", text, 1)


def _cell(model: Config) -> dict[str, Any]:
  """What the page must know of a cell, beside its parameters."""
  shape = {"hidden_size": model.hidden_size}
  cell = CELLS[model.cell](model, **shape)
  if type(cell) is cells.LSTM:
    cell = cells.Odyssey(peepholes=False, **shape)
  known = (cells.Odyssey, cells.GRU, cells.RNN)
  if not isinstance(cell, known):
    raise UserError(
      f"playground: model.cell={model.cell!r}: must be lstm, gru, rnn_tanh,"
      " rnn_relu or one of the odyssey family"
    )
  facts = {"carry": len(jax.tree.leaves(cell.initial_carry(1)))}
  if not isinstance(cell, cells.Odyssey):
    return {"kind": model.cell, **facts}
  return {
    "kind": "odyssey",
    "gates": cell.names,
    "coupled": cell.coupled,
    "input_activation": cell.input_activation,
    "output_activation": cell.output_activation,
    **facts,
  }


def _weights(params: Params, model: Config) -> dict[str, Any]:
  """The parameters, packed; of kernels a row for each output."""
  layers = []
  for depth in range(model.layers):
    layer = dict(params["body"][f"layers_{depth}"]["cell"])
    table = layer.pop("input_kernel")
    if "embedding" in table:
      layer["embedding"] = table["embedding"]
    else:
      layer["kernel"] = np.transpose(table["kernel"])
    for name in {"recurrent_kernel", "gate_kernel"} & set(layer):
      layer[name] = np.transpose(layer[name])
    layers.append({name: _pack(layer[name]) for name in layer})
  if model.tied:
    head = {"bias": _pack(params["head_bias"])}
  else:
    head = {
      "kernel": _pack(np.transpose(params["head"]["kernel"])),
      "bias": _pack(params["head"]["bias"]),
    }
  packed = {"layers": layers, "head": head}
  if model.embedding_size is not None:
    packed["embedding"] = _pack(params["embedding"]["embedding"])
  return packed


def _pack(array: Any) -> dict[str, str]:
  """An array as integers of 16 bits, each row with its own scale.

  In float16, which takes as much, most probabilities would be four times as
  far from the checkpoint's.
  """
  rows = np.reshape(np.asarray(array, np.float32), (len(array), -1))
  largest = np.abs(rows).max(axis=1, keepdims=True)
  scales = np.where(largest > 0, largest, 1) / np.float32(32767)
  integers = np.round(rows / scales).astype("<i2")
  return {
    "scales": _base64(scales.astype("<f4")),
    "integers": _base64(integers),
  }


def _base64(array: np.ndarray) -> str:
  return base64.b64encode(array.tobytes()).decode("ascii")
