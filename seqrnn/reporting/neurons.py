"""What single cells of a language model keep track of, as far as it is simple.

After Karpathy, Johnson & Li 2015, "Visualizing and understanding recurrent
networks": there people found such cells by eye; here each property of a text
takes the cell that explains it best, chosen on one text, scored on another.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config import Config
from seqrnn.data.vocabulary import PAD
from seqrnn.experiment import Carry, Decoder, Params
from seqrnn.models.cells import Cell
from seqrnn.models.losses import surprisal
from seqrnn.models.network import CELLS
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

_QUOTES = "\"'`"
_OPEN, _CLOSE = "([{", ")]}"
_RARE = 0.01  # Share of a text, below which a property is not there.

# Gates by the cell that has them, in its order; None is no gate. Of these the
# input of each gate is z + h @ R, the peepholes and norms of others apart.
_GATES: dict[str, tuple[str | None, ...]] = {
  "lstm": ("input", "forget", None, "output"),
  "odyssey_np": ("input", "forget", None, "output"),
  "gru": ("reset", "update", None),
  "gru_reset_before": ("reset", "update", None),
  "mgu": ("forget", None),
}


class Reading(NamedTuple):
  """What a model makes of texts as it reads them, symbol by symbol.

  Position t has read symbol t and predicts symbol t + 1; N states.

  Attributes:
    surprisal: -log p(next symbol) in nats [B, T].
    ids: the most likely next symbols, best first [B, T, K].
    probabilities: theirs [B, T, K].
    states: of all layers side by side [B, T, N]: tanh(c) where a cell has a c,
      else h; N is 0 where the decoder keeps none.
  """

  surprisal: np.ndarray
  ids: np.ndarray
  probabilities: np.ndarray
  states: np.ndarray


def memories(carry: Carry) -> list[jax.Array]:
  """What each layer remembers, [B, H]; nothing where the carry is no state."""
  layers = carry if isinstance(carry, tuple) else ()
  return [
    jnp.tanh(layer[0]) if isinstance(layer, tuple) else layer
    for layer in layers
  ]


@lru_cache(CACHED_FUNCTIONS)
def reader(decoder: Decoder, k: int) -> Callable[[Params, Any], Reading]:
  """A function params, ids_BS -> Reading of S - 1 positions; k likely symbols.

  It is compiled once for a decoder and texts of one shape.
  """

  @jax.jit
  def read(params, ids_BS):
    def step(carry, symbols):
      symbol_B, next_B = symbols
      carry, logits_BV = decoder.step(params, carry, symbol_B)
      chances_BV = jax.nn.log_softmax(logits_BV)
      likely = jax.lax.top_k(chances_BV, min(k, chances_BV.shape[-1]))
      nll_B = surprisal(logits_BV, next_B)
      found = [*memories(carry), jnp.zeros((len(symbol_B), 0))]
      return carry, (nll_B, *likely, jnp.concatenate(found, axis=1))

    ids_SB = ids_BS.T
    carry = decoder.start(ids_BS.shape[0])
    _, found = jax.lax.scan(step, carry, (ids_SB[:-1], ids_SB[1:]))
    return [x.swapaxes(0, 1) for x in found]

  def run(params: Params, ids_BS: np.ndarray) -> Reading:
    nll_BT, chances_BTK, ids_BTK, states_BTN = jax.device_get(
      read(params, ids_BS)
    )
    return Reading(nll_BT, ids_BTK, np.exp(chances_BTK), states_BTN)

  return run


@lru_cache(CACHED_FUNCTIONS)
def _last(decoder: Decoder) -> Callable[[Params, np.ndarray], jax.Array]:
  """`last_surprisal` of a decoder, jitted."""

  @jax.jit
  def read(params, ids_BS):
    def step(loop, symbol_B):
      carry, _ = loop
      return decoder.step(params, carry, symbol_B), None

    carry = decoder.start(ids_BS.shape[0])
    first = decoder.step(params, carry, ids_BS[:, 0])
    (_, logits_BV), _ = jax.lax.scan(step, first, ids_BS[:, 1:-1].T)
    return surprisal(logits_BV, ids_BS[:, -1])

  return read


def last_surprisal(
  decoder: Decoder, params: Params, ids_BS: np.ndarray
) -> np.ndarray:
  """-log p in nats of each row's last symbol, given those before it, [B].

  PAD stands before rows that are shorter.
  """
  return np.asarray(_last(decoder)(params, ids_BS))


def properties(text: str) -> dict[str, np.ndarray]:
  """Simple properties of a text after each of its characters, [T] each.

  A quote within a word is an apostrophe; three of a kind go over several lines,
  and one does not. Brackets count outside of quotes and comments, and end at an
  empty line. A comment is from # to the end of the line.
  """
  T = len(text)
  found = np.zeros((6, T))
  quote = ""  # What would end the text in quotes.
  depth = line = margin = 0  # Where the line began, and how far it is blank.
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
      stop = min(t + 2, T)  # What it escapes ends nothing.
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

  That is the square of their correlation: of a straight line through both.
  """
  states_MN = states_MN - states_MN.mean(0, dtype=np.float64)
  values_M = values_M - values_M.mean()
  scale_N = np.sqrt((states_MN**2).sum(0) * (values_M**2).sum())
  r_N = values_M @ states_MN / np.where(scale_N > 0, scale_N, 1)
  return r_N**2


class Text(NamedTuple):
  """A text of M symbols, and two networks as they read it.

  Attributes:
    values: name of a property -> what it is at each symbol [M].
    trained: the states of the network [M, N].
    untrained: likewise, of one that has learned nothing.
  """

  values: dict[str, np.ndarray]
  trained: np.ndarray
  untrained: np.ndarray


class Finding(NamedTuple):
  """The state that explains a property best.

  Attributes:
    name: of the property.
    state: which one.
    share: of the property's variance in the second text that it explains.
    untrained: that of an untrained network's best one, chosen likewise.
  """

  name: str
  state: int
  share: float
  untrained: float


def find(first: Text, second: Text) -> list[Finding]:
  """The best state for each property that is in both texts, best first.

  Each is chosen on the first text; how good it is, the second one says.
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
  """The share of a text in which a property is not what it mostly is."""
  _, counts = np.unique(values, return_counts=True)
  return 1 - counts.max() / counts.sum()


class Saturation(NamedTuple):
  """How often the units of a gate are all but shut or open.

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
  """Of each layer and gate; none where the cell's gates are no plain sigmoids.

  Args:
    config: of the run.
    params: of its model.
    decoder: of its model, one that carries states.
    ids_BT: texts; PAD counts for nothing.
  """
  names = _GATES.get(config.model.cell)
  if names is None:
    return []
  H = config.model.hidden_size
  cell: Any = CELLS[config.model.cell](config.model, hidden_size=H)
  shares = jax.device_get(_saturated(decoder, cell)(params, ids_BT))
  return [
    Saturation(depth, name, float(low), float(high))
    for depth, shares_2G in enumerate(shares, 1)
    for name, low, high in zip(names, *shares_2G, strict=True)
    if name is not None
  ]


@lru_cache(CACHED_FUNCTIONS)
def _saturated(
  decoder: Decoder, cell: Cell
) -> Callable[[Params, np.ndarray], list[jax.Array]]:
  """A jitted function params, ids_BT -> of each layer the shares [2, G].

  Args:
    decoder: of the model.
    cell: of each layer, not bound to any.
  """

  @jax.jit
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
