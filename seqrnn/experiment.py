"""What a task is: a value made of pure functions.

Shapes live in names, in the whole package. `logits_BTV` has three axes:

  B  batch rows             T  time: positions of a window
  D  input features         H  hidden units of a layer
  V  symbols, reserved ones included (the vocabulary size), or notes of a frame
  K  gate inputs of a cell (4H for the LSTM, 3H for the GRU, H for the RNN)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Params = Any  # A tree of arrays, as flax makes it.
Carry = Any  # A tree of arrays [B, ...], or () where no state is kept.
Batch = dict[str, Any]  # Arrays by name, each [B, ...].
Totals = dict[str, tuple[jax.Array, jax.Array]]  # name -> (total, weight)


class Decoder(NamedTuple):
  """How a model makes one symbol after another.

  Attributes:
    start: batch size -> the carry before any symbol.
    step: params, carry, symbol_B -> carry, logits_BV of the next symbol.
  """

  start: Callable[[int], Carry]
  step: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]


class Experiment(NamedTuple):
  """A task: its data, its loss and how it decodes.

  It knows nothing of optimizers, devices or the files of a run. A capability
  is a field; one that is None is a mode that the task does not have.

  A batch holds at least `inputs` [B, T], `targets` and `weights` [B, N], where
  N is T, or 1 where a sequence has one target, and `reset` [B]: the rows whose
  carry starts anew. A target of weight 0 counts for nothing. Where a symbol is
  a frame of notes, inputs and targets have one axis more, [B, T, V].

  Attributes:
    vocabularies: name -> Vocabulary; what the run keeps of its training split.
    init: key -> params.
    carry: batch size -> the initial carry; () where batches share no state.
    loss: params, carry, batch, key -> mean loss in nats over the weight of the
      batch, (carry, totals). `key` is None in evaluation: nothing is random.
    facts: split -> {"documents", "symbols", "crc32"}: how much data, which;
      and their "origin", where they change with it.
    batches: split or list of Documents, epoch -> Batches of numpy arrays. By
      keyword: `batch_size`, and batches then hold `document` and `place` [B],
      which one a row is of and where in all symbols it begins; `ordered`, one
      document after the other; `named`, and they hold what the data themselves
      say, as objects: `read` [B, T] and `truth` [B, N], "" where it is nothing.
    predict: params, carry, batch -> carry, logits_BNV.
    score: params, carry, batch -> carry, nll_BN in nats; None: cannot detect.
    decoder: None: cannot sample.
    forbidden: T -> bool_NT, the inputs s that output t must not depend on;
      None where no input is a target. The leak probe tests it. Of a model that
      trains several heads, those of one after those of the other; `heads` of a
      batch [B, heads] says how much each counts in the loss.
    heads: name -> like `predict`, logits of `targets`: what detection may ask,
      `forward` of the past alone, and others; none: cannot detect.
    fills_gaps: whether `predict` at t reads both sides of t and not t.
    unit: what targets are, each with its own loss: `symbol`; `frame` of notes,
      which are 0 or 1 and are drawn each by itself; or `label` of what is read,
      whose vocabulary is `labels`: a text is then read as it is, and nothing is
      asked about its end.
    present: Predictions -> what shows labels on a console.
  """

  vocabularies: dict[str, Any]
  init: Callable[[jax.Array], Params]
  carry: Callable[[int], Carry]
  loss: Callable[..., tuple[jax.Array, tuple[Carry, Totals]]]
  facts: Callable[[str], dict[str, Any]]
  batches: Callable[..., Any]
  predict: Callable[[Params, Carry, Batch], tuple[Carry, jax.Array]]
  score: Callable[[Params, Carry, Batch], tuple[Carry, jax.Array]] | None
  decoder: Decoder | None
  forbidden: Callable[[int], Any] | None
  heads: Mapping[str, Callable[..., tuple[Carry, jax.Array]]] = {}
  fills_gaps: bool = False
  unit: str = "symbol"
  present: Callable[[Any], Any] | None = None
