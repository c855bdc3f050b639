"""Relates single units of a language model to simple properties of a text.

Karpathy, Johnson & Li (2015), "Visualizing and understanding recurrent
networks", found such units by eye, and called them cells. This module chooses
the unit that explains a property best on one text, and scores it on another.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import PAD
from seqrnn.experiment import Carry, Decoder, Params
from seqrnn.models import cells
from seqrnn.models.cell import Cell
from seqrnn.models.losses import surprisal
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

_QUOTES = "\"'`"
_OPEN, _CLOSE = "([{", ")]}"
_RARE = 0.01  # A property that differs from its mode less often is ignored.
CLEAR = 0.1  # The least share of its variance that a unit explains.


class Reading(NamedTuple):
  """The predictions and states of a model as it reads texts.

  At position t it has read symbol t and predicts symbol t + 1; N states.

  Attributes:
    surprisal: -log p(next symbol) in nats [B, T].
    ids: the most likely next symbols, best first [B, T, K].
    probabilities: of these symbols [B, T, K].
    states: of all layers, concatenated [B, T, N]: tanh(c) of cells with a c,
      else h. N is 0 if the decoder keeps no state.
  """

  surprisal: np.ndarray
  ids: np.ndarray
  probabilities: np.ndarray
  states: np.ndarray


def memories(carry: Carry) -> list[jax.Array]:
  """The state of each layer, [B, H]; [] if the carry holds no states."""
  layers = carry if isinstance(carry, tuple) else ()
  return [
    jnp.tanh(layer[0]) if isinstance(layer, tuple) else layer
    for layer in layers
  ]


@lru_cache(CACHED_FUNCTIONS)
def scanner(
  decoder: Decoder, k: int, mesh: Mesh | None = None
) -> Callable[[Params, Any], Any]:
  """A jitted function params, ids_BS -> the arrays of a Reading, [B, S-1, ...].

  In place of probabilities it has their logarithms, before the ids.
  """

  @partial(sharding.jit, mesh=mesh)
  def read(params, ids_BS):
    def step(carry, symbols):
      symbol_B, next_B = symbols
      carry, logits_BV = decoder.step(params, carry, symbol_B)
      log_p_BV = jax.nn.log_softmax(logits_BV)
      likely = jax.lax.top_k(log_p_BV, min(k, log_p_BV.shape[-1]))
      nll_B = surprisal(logits_BV, next_B)
      states = [*memories(carry), jnp.zeros((len(symbol_B), 0))]
      return carry, (nll_B, *likely, jnp.concatenate(states, axis=1))

    ids_SB = ids_BS.T
    carry = decoder.start(ids_BS.shape[0])
    _, arrays = jax.lax.scan(step, carry, (ids_SB[:-1], ids_SB[1:]))
    return [x.swapaxes(0, 1) for x in arrays]

  return read


def reader(decoder: Decoder, k: int) -> Callable[[Params, Any], Reading]:
  """A function params, ids_BS -> Reading of S - 1 positions, k likely symbols.

  It is compiled once for a decoder and texts of one shape.
  """
  scan = scanner(decoder, k)

  def read(params: Params, ids_BS: np.ndarray) -> Reading:
    nll_BT, log_p_BTK, ids_BTK, states_BTN = jax.device_get(
      scan(params, ids_BS)
    )
    return Reading(nll_BT, ids_BTK, np.exp(log_p_BTK), states_BTN)

  return read


def properties(text: str) -> dict[str, np.ndarray]:
  """Simple properties of a text after each of its characters, [T] each.

  A quote within a word is an apostrophe. Three quotes of a kind enclose several
  lines; a single quote ends with its line. Brackets count outside of quotes and
  comments, and end at an empty line. A comment ends with its line.
  """
  T = len(text)
  found = np.zeros((6, T))
  quote = ""  # The quotes that are open.
  # Open brackets, the start of the line, and the end of its indentation.
  depth = line = margin = 0
  commented = False
  t = 0
  while t < T:
    symbol, stop = text[t], t + 1
    if symbol == "\n":
      quote = quote if len(quote) == 3 else ""
      depth = depth if text[line:t].strip() else 0
      commented, line, margin = False, stop, stop
    elif symbol in " \t" and margin == t:
      margin = stop
    elif commented:
      pass
    elif quote and symbol == "\\" and text[t + 1 : t + 2] != "\n":
      stop = min(t + 2, T)  # An escaped quote ends nothing.
    elif quote:
      if text.startswith(quote, t):
        stop, quote = t + len(quote), ""
    elif symbol in _QUOTES and not (
      text[t - 1 : t].isalnum() and symbol == "'"
    ):
      quote = 3 * symbol if text.startswith(3 * symbol, t) else symbol
      stop = t + len(quote)
    elif symbol == "#":
      commented = True
    elif symbol in _OPEN:
      depth += 1
    elif symbol in _CLOSE:
      depth = max(depth - 1, 0)
    found[0, t:stop] = np.arange(t, stop) + 1 - line
    found[1:, t:stop] = np.array(
      [
        margin - line,
        len(quote) == 1,
        len(quote) == 3,
        depth > 0,
        commented,
      ]
    )[:, None]
    t = stop
  names = (
    "position in the line",
    "indentation of the line",
    "inside quotes",
    "inside triple quotes",
    "inside brackets",
    "inside a comment",
  )
  return dict(zip(names, found, strict=True))


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

  @property
  def clear(self) -> bool:
    """Whether the state says enough of the property to be shown."""
    return self.share >= CLEAR


def find(first: Text, second: Text) -> list[Finding]:
  """The best state for each property that both texts have, best first.

  Each state is chosen on the first text and scored on the second text.
  """
  found = []
  for name, values_M in first.values.items():
    if min(map(_spread, (values_M, second.values[name]))) < _RARE:
      continue
    best = int(explained(first.trained, values_M).argmax())
    other = int(explained(first.untrained, values_M).argmax())
    share, without = (
      float(explained(states_MN[:, [n]], second.values[name])[0])
      for states_MN, n in ((second.trained, best), (second.untrained, other))
    )
    found.append(Finding(name, best, share, without))
  return sorted(found, key=lambda finding: -finding.share)


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
  cell: Any = cells.make(config.model, hidden_size=config.model.hidden_size)
  names = cell.sigmoid_gates
  if not names:
    return []
  shares = jax.device_get(saturated(decoder, cell)(params, ids_BT))
  return [
    Saturation(depth, name, float(low), float(high))
    for depth, shares_2G in enumerate(shares, 1)
    for name, low, high in zip(names, *shares_2G, strict=True)
    if name is not None
  ]


@lru_cache(CACHED_FUNCTIONS)
def saturated(
  decoder: Decoder, cell: Cell, mesh: Mesh | None = None
) -> Callable[[Params, np.ndarray], list[jax.Array]]:
  """A jitted function params, ids_BT -> shares [2, G] for each layer.

  Args:
    decoder: of the model.
    cell: of every layer, without parameters.
    mesh: the devices; None: `sharding.one_device`.
  """

  @partial(sharding.jit, mesh=mesh)
  def count(params, ids_BT):
    def step(carry, symbol_B):
      new, _ = decoder.step(params, carry, symbol_B)
      hidden = [cell.hidden(layer) for layer in carry]
      after = [cell.hidden(layer) for layer in new]
      return new, (hidden, after)

    start = decoder.start(ids_BT.shape[0])
    _, (before, after) = jax.lax.scan(step, start, ids_BT.T)
    x, found, own = ids_BT.T, [], cell
    if "embedding" in params:
      x = params["embedding"]["embedding"][x]
    else:
      table = params["body"]["layers_0"]["cell"]["input_kernel"]["embedding"]
      own = cell.clone(vocabulary_size=len(table))
    H = cell.hidden_size
    for depth, (h_TBH, y_TBH) in enumerate(zip(before, after, strict=True)):
      variables = {"params": params["body"][f"layers_{depth}"]["cell"]}
      z_TBK: Any = own.apply(variables, x, method="inputs")
      u_NK: Any = own.apply(variables, h_TBH.reshape(-1, H), method="recurrent")
      a_TBK = z_TBK + u_NK.reshape(z_TBK.shape)
      open_TBGH = jax.nn.sigmoid(a_TBK).reshape(*a_TBK.shape[:2], -1, H)
      some_TB11 = (ids_BT.T != PAD)[..., None, None]
      sums = [
        jnp.sum(part & some_TB11, axis=(0, 1, 3))
        for part in (open_TBGH < 0.1, open_TBGH > 0.9)
      ]
      found.append(jnp.stack(sums) / (jnp.sum(some_TB11) * H))
      x, own = y_TBH, cell
    return found

  return count
