"""What single cells of a language model keep track of, as far as it is simple.

After Karpathy, Johnson & Li 2015, "Visualizing and understanding recurrent
networks": there people found such cells by eye; here each property of a text
takes the cell that explains it best, chosen on one text, scored on another.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config import Config
from seqrnn.data.vocabulary import PAD
from seqrnn.experiment import Carry, Decoder, Params
from seqrnn.models import CELLS

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
    states: of all layers side by side [B, T, N]: c where a cell has one, else
      h; N is 0 where the decoder keeps none.
  """

  surprisal: np.ndarray
  ids: np.ndarray
  probabilities: np.ndarray
  states: np.ndarray


def memories(carry: Carry) -> list[jax.Array]:
  """The first array that each layer carries; none where it is no state."""
  if not isinstance(carry, tuple):
    return []
  return [jax.tree.leaves(layer)[0] for layer in carry]


def reader(decoder: Decoder, k: int) -> Callable[[Params, Any], Reading]:
  """A function params, ids_BS -> Reading of S - 1 positions; k likely symbols.

  It is compiled once for texts of one shape, whatever the parameters.
  """

  @jax.jit
  def read(params, ids_BS):
    def step(carry, symbols):
      symbol_B, next_B = symbols
      carry, logits_BV = decoder.step(params, carry, symbol_B)
      chances_BV = jax.nn.log_softmax(logits_BV)
      likely = jax.lax.top_k(chances_BV, min(k, chances_BV.shape[-1]))
      nll_B1 = -jnp.take_along_axis(chances_BV, next_B[:, None], axis=1)
      found = [*memories(carry), jnp.zeros((len(symbol_B), 0))]
      return carry, (nll_B1[:, 0], *likely, jnp.concatenate(found, axis=1))

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


def properties(symbols: Sequence[str]) -> dict[str, np.ndarray]:
  """Simple properties of a text after each of its symbols, [T] each.

  A quote within a word is an apostrophe; three of a kind go over several lines,
  and one does not. A comment is from # to the end of the line.
  """
  T = len(symbols)
  column, indent, quoted, depth, comment = np.zeros((5, T))
  quote = ""  # What would end the text in quotes.
  open_brackets, in_comment, margin = 0, False, True
  column_now = indent_now = 0
  t = 0
  while t < T:
    symbol, width = symbols[t], 1
    if symbol == "\n":
      column_now = indent_now = 0
      in_comment, margin = False, True
      quote = quote if len(quote) == 3 else ""
    else:
      column_now += 1
      if margin and symbol in " \t":
        indent_now += 1
      else:
        margin = False
    if in_comment or symbol == "\n":
      pass
    elif symbol == "\\" and quote and t + 1 < T and symbols[t + 1] != "\n":
      width = 2  # What it escapes ends nothing.
    elif quote:
      end = "".join(symbols[t : t + len(quote)])
      if end == quote:
        width, quote = len(quote), ""
    elif symbol in _QUOTES and symbol:
      triple = "".join(symbols[t : t + 3]) == 3 * symbol
      if triple or not (t and symbols[t - 1].isalnum() and symbol == "'"):
        quote = 3 * symbol if triple else symbol
        width = len(quote)
    elif symbol == "#":
      in_comment = True
    elif symbol in _OPEN:
      open_brackets += 1
    elif symbol in _CLOSE:
      open_brackets = max(open_brackets - 1, 0)
    for place in range(t, min(t + width, T)):
      column[place] = column_now + place - t
      indent[place] = indent_now
      quoted[place] = bool(quote)
      depth[place] = open_brackets > 0
      comment[place] = in_comment
    column_now += width - 1
    t += width
  return {
    "position in the line": column,
    "indentation of the line": indent,
    "inside quotes": quoted,
    "inside brackets": depth,
    "inside a comment": comment,
  }


def explained(states_MN: np.ndarray, values_M: np.ndarray) -> np.ndarray:
  """The share of a property's variance that each state explains, [N].

  That is the square of their correlation: of a straight line through both.
  """
  states_MN = states_MN - states_MN.mean(0, dtype=np.float64)
  values_M = values_M - values_M.mean()
  scale_N = np.sqrt((states_MN**2).sum(0) * (values_M**2).sum())
  r_N = values_M @ states_MN / np.where(scale_N > 0, scale_N, 1)
  return r_N**2


class Finding(NamedTuple):
  """The state that explains a property best.

  Attributes:
    name: of the property.
    state: which one.
    chosen: the share that it explains of the text it was chosen on.
    share: of the other text.
    untrained: that of an untrained network's best one, chosen likewise.
  """

  name: str
  state: int
  chosen: float
  share: float
  untrained: float


def find(
  known: dict[str, tuple[np.ndarray, np.ndarray]],
  trained: tuple[np.ndarray, np.ndarray],
  untrained: tuple[np.ndarray, np.ndarray],
) -> list[Finding]:
  """The best state for each property that is in both texts, best first.

  Args:
    known: name of a property -> its values in the first text and the second.
    trained: the states of the network over both texts, [M, N].
    untrained: likewise of a network that has learned nothing.
  """
  found = []
  for name, (first, second) in known.items():
    if min(_spread(first), _spread(second)) < _RARE:
      continue
    best, shares = [], []
    for states in (trained, untrained):
      chosen = explained(states[0], first)
      best.append(int(chosen.argmax()))
      shares.append(
        (float(chosen.max()), float(explained(states[1], second)[best[-1]]))
      )
    (chosen, share), (_, without) = shares
    found.append(Finding(name, best[0], chosen, share, without))
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
    decoder: of its model.
    ids_BT: texts; PAD counts for nothing.
  """
  names = _GATES.get(config.model.cell)
  carry = jax.eval_shape(lambda: decoder.start(1))
  if names is None or not memories(carry):
    return []
  H = config.model.hidden_size
  body = params["body"]

  def cell(depth, **shape):
    return CELLS[config.model.cell](config.model, hidden_size=H, **shape)

  @jax.jit
  def count(params, ids_BT):
    def step(carry, symbol_B):
      new, _ = decoder.step(params, carry, symbol_B)
      hidden = [cell(0).hidden(layer) for layer in carry]
      after = [cell(0).hidden(layer) for layer in new]
      return new, (hidden, after)

    start = decoder.start(ids_BT.shape[0])
    _, (before, after) = jax.lax.scan(step, start, ids_BT.T)
    x, found = ids_BT.T, []
    shape = {}
    if "embedding" in params:
      x = params["embedding"]["embedding"][x]
    else:
      table = body["layers_0"]["cell"]["input_kernel"]["embedding"]
      shape = {"vocabulary_size": len(table)}
    for depth, (h_TBH, y_TBH) in enumerate(zip(before, after, strict=True)):
      own = params["body"][f"layers_{depth}"]["cell"]
      variables = {"params": own}
      z_TBK = cell(depth, **shape).apply(variables, x, method="inputs")
      a_TBK = z_TBK + h_TBH @ own["recurrent_kernel"]
      open_TBGH = jax.nn.sigmoid(a_TBK).reshape(*a_TBK.shape[:2], -1, H)
      some_TB11 = (ids_BT.T != PAD)[..., None, None]
      sums = [
        jnp.sum(part & some_TB11, axis=(0, 1, 3))
        for part in (open_TBGH < 0.1, open_TBGH > 0.9)
      ]
      found.append(jnp.stack(sums) / (jnp.sum(some_TB11) * H))
      x, shape = y_TBH, {}
    return found

  return [
    Saturation(depth, name, float(low), float(high))
    for depth, shares_2G in enumerate(count(params, ids_BT), 1)
    for name, low, high in zip(names, *jax.device_get(shares_2G), strict=True)
    if name is not None
  ]
