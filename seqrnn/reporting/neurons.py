"""Relates single units of a language model to simple properties of a text.

Karpathy, Johnson & Li (2015), "Visualizing and understanding recurrent
networks", found such units by eye, and called them cells. This module chooses
the unit that explains a property best on one text, and scores it on another.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import PAD
from seqrnn.experiment import Carry, Decoder, Params
from seqrnn.models import cells
from seqrnn.models.losses import surprisal
from seqrnn.runtime import sharding

# A comment ends with its line, and so does a quote of one mark; a ' within a
# word is an apostrophe. A backslash escapes the next character of a quote.
_TOKEN = re.compile(
  r"""(?P<comment>\#[^\n]*)
  |(?P<triple>(?P<three>\"{3}|'{3}|`{3})(?:\\.|(?!(?P=three)).)*)
  |(?P<quote>(?P<one>["`]|(?<!\w)')(?:\\[^\n]|(?!(?P=one))[^\n\\])*)
  |(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<blank>\n[ \t]*(?=\n))""",
  re.DOTALL | re.VERBOSE,
)
_PLACES = {
  "quote": "inside quotes",
  "triple": "inside triple quotes",
  "comment": "inside a comment",
}
_RARE = 0.01  # A property that differs from its mode less often is ignored.


class TextReading(NamedTuple):
  """The predictions and states of a model as it reads texts.

  At position t it has read symbol t and predicts symbol t + 1; N states.

  Attributes:
    surprisal: -log p(next symbol) in nats [B, T].
    ids: the most likely next symbols, best first [B, T, K].
    probabilities: of these symbols [B, T, K].
    states: of all layers, concatenated [B, T, N]: tanh(c) of cells with a c
      for each unit, else h. N is 0 if the decoder keeps no state.
  """

  surprisal: np.ndarray
  ids: np.ndarray
  probabilities: np.ndarray
  states: np.ndarray


def memories(carry: Carry) -> list[jax.Array]:
  """The state of each layer, [B, H]; [] if the carry holds no states."""
  layers = carry if isinstance(carry, tuple) else ()

  def state(layer):
    if not isinstance(layer, tuple):
      return layer
    c, h, *_ = layer
    return jnp.tanh(c) if c.ndim == 2 else h  # c may be a matrix.

  return [state(layer) for layer in layers]


def reader(decoder: Decoder, k: int) -> Callable[[Params, Any], TextReading]:
  """A function params, ids_BS -> TextReading of S - 1 positions.

  It has k likely symbols, and is compiled once for texts of one shape.
  """

  @sharding.jit
  def scan(params, ids_BS):
    def step(carry, symbols):
      symbol_B, next_B = symbols
      carry, logits_BV = decoder.step(params, carry, symbol_B)
      chances_BV = jax.nn.softmax(logits_BV)
      chances, ids = jax.lax.top_k(chances_BV, min(k, chances_BV.shape[-1]))
      states = [*memories(carry), jnp.zeros((len(symbol_B), 0))]
      nll_B = surprisal(logits_BV, next_B)
      return carry, (nll_B, ids, chances, jnp.concatenate(states, axis=1))

    ids_SB = ids_BS.T
    carry = decoder.start(ids_BS.shape[0])
    _, arrays = jax.lax.scan(step, carry, (ids_SB[:-1], ids_SB[1:]))
    return [x.swapaxes(0, 1) for x in arrays]

  return lambda params, ids_BS: TextReading(
    *jax.device_get(scan(params, ids_BS))
  )


def properties(text: str) -> dict[str, np.ndarray]:
  """Simple properties of a text after each of its characters, [T] each.

  Brackets count outside of quotes and comments, and end at an empty line.
  """
  names = ("position in the line", "indentation of the line")
  names += ("inside brackets", *_PLACES.values())
  values = {name: np.zeros(len(text)) for name in names}
  start = 0
  for line in text.split("\n"):
    span = slice(start, start + len(line))
    blanks = len(line) - len(line.lstrip(" \t"))
    position = np.arange(len(line)) + 1
    values["position in the line"][span] = position
    values["indentation of the line"][start : span.stop + 1] = blanks
    values["indentation of the line"][span] = np.minimum(position, blanks)
    start = span.stop + 1
  stop = depth = 0
  while match := _TOKEN.search(text, stop):
    start, stop = match.span()
    kind = str(match.lastgroup)
    if kind in _PLACES:
      values[_PLACES[kind]][start:stop] = 1
      closing = match["three"] or match["one"]
      stop += len(closing or "") * text.startswith(closing or "", stop)
    else:
      step = {"open": 1, "close": -1, "blank": -depth}[kind]
      depth = max(depth + step, 0)
      values["inside brackets"][start:] = depth > 0
  return values


def explained(states_MN: np.ndarray, values_M: np.ndarray) -> np.ndarray:
  """The share of a property's variance that each state explains, [N].

  It is the square of their correlation, as for a linear regression.
  """
  states_MN = states_MN - states_MN.mean(0, dtype=np.float64)
  values_M = values_M - values_M.mean()
  scale_N = np.sqrt((states_MN**2).sum(0) * (values_M**2).sum())
  r_N = values_M @ states_MN / np.where(scale_N > 0, scale_N, 1)
  return r_N**2


class Text(NamedTuple):
  """A text of M symbols, and the states of two networks that read it.

  Attributes:
    values: name of a property -> its value at each symbol [M].
    trained: the states of the trained network [M, N].
    untrained: the states of the network before training [M, N].
  """

  values: dict[str, np.ndarray]
  trained: np.ndarray
  untrained: np.ndarray


class Finding(NamedTuple):
  """The state that explains a property best.

  Attributes:
    name: of the property.
    state: its index.
    share: the share of the property's variance that it explains in the second
      text.
    untrained: the same share for the best state of the untrained network.
  """

  name: str
  state: int
  share: float
  untrained: float


def best_units(first: Text, second: Text) -> list[Finding]:
  """The best state for each property that both texts have, best first.

  Each state is chosen on the first text and scored on the second text.
  """
  findings = []
  for name, values_M in first.values.items():
    if min(map(_spread, (values_M, second.values[name]))) < _RARE:
      continue
    best = int(explained(first.trained, values_M).argmax())
    other = int(explained(first.untrained, values_M).argmax())
    share, without = (
      float(explained(states_MN[:, [n]], second.values[name])[0])
      for states_MN, n in ((second.trained, best), (second.untrained, other))
    )
    findings.append(Finding(name, best, share, without))
  return sorted(findings, key=lambda finding: -finding.share)


def _spread(values: np.ndarray) -> float:
  """The share of a text where a property differs from its mode."""
  _, counts = np.unique(values, return_counts=True)
  return 1 - counts.max() / counts.sum()


class Saturation(NamedTuple):
  """How often the units of a gate are almost closed or almost open.

  Attributes:
    layer: from 1.
    gate: its name.
    low: share of units and steps where it is below 0.1.
    high: share where it is above 0.9.
  """

  layer: int
  gate: str
  low: float
  high: float


def saturation(
  config: Config, params: Params, decoder: Decoder, ids_BT: np.ndarray
) -> list[Saturation]:
  """Saturation by layer and gate; [] for cells without plain sigmoid gates.

  Args:
    config: of the run.
    params: of its model.
    decoder: of its model; it must carry states.
    ids_BT: texts; PAD is not counted.
  """
  H = config.model.hidden_size
  cell: Any = cells.make(config.model, hidden_size=H)
  some_TB11 = (ids_BT.T != PAD)[..., None, None]

  @sharding.jit
  def shares(params):
    def step(carry, symbol_B):
      new, _ = decoder.step(params, carry, symbol_B)
      return new, [[cell.hidden(x) for x in layers] for layers in (carry, new)]

    start = decoder.start(len(ids_BT))
    _, (before, after) = jax.lax.scan(step, start, ids_BT.T)
    x, inputs, sums = jnp.asarray(ids_BT.T), cell, []
    if "embedding" in params:
      x = params["embedding"]["embedding"][x]
    else:
      table = params["body"]["layers_0"]["cell"]["input_kernel"]["embedding"]
      inputs = cell.clone(vocabulary_size=len(table))
    for depth, h_TBH in enumerate(before):
      variables = {"params": params["body"][f"layers_{depth}"]["cell"]}
      z_TBK: Any = inputs.apply(variables, x, method="inputs")
      h_NH = h_TBH.reshape(-1, H)
      u_NK: Any = inputs.apply(variables, h_NH, method="recurrent")
      a_TBK = z_TBK + u_NK.reshape(z_TBK.shape)
      open_TBGH = jax.nn.sigmoid(a_TBK).reshape(*a_TBK.shape[:2], -1, H)
      for part in (open_TBGH < 0.1, open_TBGH > 0.9):
        sums.append(jnp.sum(part & some_TB11, axis=(0, 1, 3)))
      x, inputs = after[depth], cell
    return jnp.stack(sums) / (some_TB11.sum() * H)

  # In blocks, the layer above reads more than the states.
  if not cell.sigmoid_gates or config.model.block != "plain":
    return []
  shares_NG = jax.device_get(shares(params))
  return [
    Saturation(depth + 1, name, float(low), float(high))
    for depth in range(config.model.layers)
    for name, low, high in zip(
      cell.sigmoid_gates, *shares_NG[2 * depth : 2 * depth + 2], strict=True
    )
    if name is not None
  ]
