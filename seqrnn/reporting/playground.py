"""Builds the playground: a page in which a language model continues a text.

The page contains the weights and the JavaScript that runs them; it loads
nothing else.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from seqrnn.config.combinations import require
from seqrnn.config.read import Config
from seqrnn.data.vocabulary import RESERVED
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params
from seqrnn.models import cells
from seqrnn.sampling.texts import start_ids

_PAGE = Path(__file__).with_suffix(".html")
_LIMIT = 2**25  # Parameters: a page of 90 MB.


def build(
  experiment: Experiment, params: Params, config: Config, title: str
) -> str:
  """The content of the page of a language model.

  Raises:
    UserError: the page cannot run this model.
  """
  model = config.model
  writes = experiment.writes_text and config.data.mapping == "many_to_many"
  why = "must be a language model, which continues a text symbol by symbol"
  holds = writes and "layers_0" in params["body"]
  require(config, holds, why, "task", "data.mapping")
  why = "must be float32 or tf32"
  require(config, model.products != "bfloat16", why, "model.products")
  require(config, model.block == "plain", "must be plain", "model.block")
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  if count > _LIMIT:
    raise UserError(
      f"the model has {count:,} parameters: must be at most"
      f" {_LIMIT:,} to fit in a page"
    )
  symbols = experiment.vocabularies["symbols"]
  content = {
    "title": title,
    "about": (
      f"layers: {model.layers}, cell: {model.cell}, units of a layer:"
      f" {model.hidden_size}, parameters: {count:,}, symbols:"
      f" {len(symbols.symbols)}, besides {len(RESERVED)} reserved ones"
      " (padding, begin, end, unknown)."
      " Unlikely symbols are orange; so are the first ones of a text, because"
      " the model has read little before them."
    ),
    "unit": symbols.unit,
    "lowercase": config.data.lowercase,
    "punctuation": config.data.punctuation,
    "symbols": symbols.symbols,
    "boundaries": config.data.boundaries,
    "begin": start_ids(symbols, config.data, "x").tolist(),
    "prime": config.sample.prime,
    "temperature": config.sample.temperature[0],
    "share": config.sample.top_p or 1.0,
    "cell": _cell(config),
    **_weights(params, model),
  }
  # "</script" ends a script in HTML even inside of a string.
  text = json.dumps(content).replace("<", "\\u003c")
  return _PAGE.read_text("utf-8").replace("MODEL", text, 1)


def _cell(config: Config) -> dict[str, str | int | Sequence[str]]:
  """The settings of a cell that the page needs, besides its parameters."""
  model = config.model
  shape = {"hidden_size": model.hidden_size}
  cell = cells.make(model, **shape)
  if type(cell) is cells.LSTM:
    cell = cells.Odyssey(peepholes=False, **shape)
  known = (cells.Odyssey, cells.GRU, cells.RNN)
  why = "must be lstm, gru, rnn_tanh, rnn_relu or one of the odyssey family"
  require(config, isinstance(cell, known), why, "model.cell")
  carry = len(jax.tree.leaves(cell.initial_carry(1)))
  if not isinstance(cell, cells.Odyssey):
    return {"kind": model.cell, "carry": carry}
  return {
    "kind": "odyssey",
    "gates": cell.names,
    "coupled": cell.coupled,
    "input_activation": cell.input_activation,
    "output_activation": cell.output_activation,
    "carry": carry,
  }


def _weights(params: Params, model: Config) -> dict[str, Any]:
  """The packed parameters; kernels have a row for each output."""
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


def _pack(array: ArrayLike) -> dict[str, str]:
  """Quantizes an array to 16-bit integers, with a scale for each row.

  float16 takes the same space, but its error in most probabilities would be
  four times as large.
  """
  rows = np.asarray(array, np.float32)
  rows = np.reshape(rows, (len(rows), -1))
  largest = np.abs(rows).max(axis=1, keepdims=True)
  scales = np.where(largest > 0, largest, 1) / np.float32(32767)
  integers = np.round(rows / scales).astype("<i2")
  return {
    "scales": _base64(scales.astype("<f4")),
    "integers": _base64(integers),
  }


def _base64(array: np.ndarray) -> str:
  return base64.b64encode(array.tobytes()).decode("ascii")
