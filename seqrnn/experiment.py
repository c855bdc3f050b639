"""The contract of a task: a value made of pure functions.

Shapes live in names, in the whole package. `logits_BTV` has three axes:

  B  batch rows             T  time: positions of a window
  D  input features         H  hidden units of a layer
  V  symbols, reserved ones included (the vocabulary size), or notes of a frame
  K  gate inputs of a cell (4H for the LSTM, 3H for the GRU, H for the RNN)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from seqrnn.config.field import Config
from seqrnn.data.batches.windows import Batches
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.runtime import sharding

Params = Any  # A tree of arrays, as flax makes it.
Carry = Any  # A tree of arrays [B, ...], or () where no state is kept.
Batch = dict[str, Any]  # Arrays by name, each [B, ...].
Totals = dict[str, tuple[jax.Array, jax.Array]]  # name -> (total, weight)
# params, carry, batch -> carry, an array of the batch, such as logits_BNV.
Predict = Callable[[Params, Carry, Batch], tuple[Carry, jax.Array]]
# params, carry, batch -> carry, (outputs_BNV, best_BN).
Decode = Callable[
  [Params, Carry, Batch], tuple[Carry, tuple[jax.Array, jax.Array]]
]


class Decoder(NamedTuple):
  """How a model generates one symbol at a time.

  Attributes:
    start: batch size -> the carry before any symbol.
    step: params, carry, symbol_B -> carry, logits_BV of the next symbol.
  """

  start: Callable[[int], Carry]
  step: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]


class Filler(NamedTuple):
  """How a model of both sides draws one position after another.

  Attributes:
    start: params, ids_BT -> the carry before the first position. It holds what
      follows each position of ids_BT.
    step: params, carry, symbol_B before the position -> carry, logits_BV of the
      position, from the symbols given to `step` so far and from the symbols of
      ids_BT that follow it. The symbol before the first position is PAD.
  """

  start: Callable[[Params, jax.Array], Carry]
  step: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]


class Report(NamedTuple):
  """The texts and sections of report.html for a task.

  Attributes:
    about: a sentence on the task. `{word}` is replaced by the word for an
      input, `{count}` by the number of labels.
    sections: names of the sections on what the model has learned, in the order
      of the page; SECTIONS in seqrnn/modes/report.py has them.
    target: the word for a target; "": the word for an input if targets have a
      vocabulary, else the unit.
  """

  about: str = ""
  sections: tuple[str, ...] = ()
  target: str = ""


class Experiment(NamedTuple):
  """A task: its data, its loss and how it decodes.

  An experiment has no optimizer, no device and no file of a run. A capability
  is a field; a task lacks the modes whose fields are None (modes/__init__.py).

  A batch has at least `inputs` [B, T], `targets` and `weights` [B, N], where N
  is T, or 1 where a sequence has one target, and `reset` [B], true for the rows
  whose carry starts at zero. A target of weight 0 is ignored. Inputs are ids of
  the vocabulary `symbols`; a task without it reads frames, [B, T, V].

  Attributes:
    vocabularies: name -> Vocabulary, made from the training split of the run.
    init: key -> params.
    loss: params, carry, batch, key -> mean loss over the weight of the batch,
      (carry, totals). Totals have `loss`, and other figures by name. `key` is
      None in evaluation, where nothing is random.
    facts: split -> {"documents", "symbols", "crc32"}, the size and the checksum
      of the data, and "origin" if the data depend on it.
    batches: split, Pieces or list of Documents, epoch -> Batches of numpy
      arrays. Without an epoch, None, those of `train` are not shuffled and have
      each symbol once, for evaluation. It takes keywords: with `batch_size`,
      batches also have `document` and `place` [B], the document of each row and
      its first position in all symbols; `ordered` reads one document after
      another; with `named`, batches also have `document` and `place`, `read`
      [B, T] and, unless targets are numbers, `truth` [B, N], the strings of the
      data, "" where there is none.
    predict: params, carry, batch -> carry, outputs_BNV: logits, or numbers.
      None: the task lacks --mode=predict, --mode=describe and --mode=embed.
    decode: params, carry, batch -> carry, (outputs_BNV, best_BN): the outputs
      of `predict`, and the ids of the most likely sequence of targets. None: of
      each target, the most likely one.
    forbidden: T -> bool_NT, the inputs s that output t must not depend on; None
      if no input is a target. The leak probe tests it. A model that trains
      several heads has the rows of each head, one head after another; then
      `heads` [B, heads] of a batch is the weight of each head in the loss.
    carry: batch size -> the initial carry; () if batches share no state.
    score: params, carry, batch -> carry, nll_BN in nats; None: cannot score.
    decoder: generates symbols or frames; None: cannot sample.
    writer: params -> the experiment and the params of a language model that is
      a part of this model; None: the whole model is the language model.
    heads: name -> a function like `predict` with logits of `targets`, for
      detection; `forward` reads the past alone. Empty: cannot detect.
    fills_gaps: whether `predict` at t reads both sides of t and not t.
    filler: draws the symbols of gaps from both sides; None: cannot.
    unless: the setting that gives this task a decoder, for messages; "": none.
    unit: a singular noun for a target, which has a loss of its own. If there is
      a vocabulary of that name (`symbols` for `symbol`, `labels` for `label`),
      targets are its ids and outputs are logits of them. Labels belong to the
      text that is read, so no question is added to its end. In a `frame`, each
      note is 0 or 1. Any other word, for example
      `sequence`, is for targets that are numbers; an unknown number is NaN.
    loss_unit: `nats`, or the unit of another loss, for example `squared error`.
    by_text: whether a document has one label or one vector of numbers: its
      probabilities or numbers are the mean over the rows of the document. Where
      there are labels or such numbers, batches that are not of training also
      have `document` and `place`, which join the rows.
    figures: targets and outputs of documents, float64 [N, V] -> figures by
      name, which replace totals of the same name; for numbers with `by_text`.
    present: Predictions -> a renderable for the console of --mode=predict;
      None: the mode's own tables.
    report: the texts and sections of report.html.
    remarks: lines about the data that a training prints.
  """

  vocabularies: Mapping[str, Vocabulary]
  init: Callable[[jax.Array], Params]
  loss: Callable[..., tuple[jax.Array, tuple[Carry, Totals]]]
  facts: Callable[[str], dict[str, Any]]
  batches: Callable[..., Batches]
  predict: Predict | None
  forbidden: Callable[[int], np.ndarray] | None
  carry: Callable[[int], Carry] = lambda _: ()
  score: Predict | None = None
  decoder: Decoder | None = None
  writer: Callable[[Params], tuple["Experiment", Params]] | None = None
  heads: Mapping[str, Predict] = {}
  fills_gaps: bool = False
  filler: Filler | None = None
  unless: str = ""
  unit: str = "symbol"
  loss_unit: str = "nats"
  decode: Decode | None = None
  by_text: bool = False
  figures: Callable[..., dict[str, float]] | None = None
  present: Callable[[Any], str] | None = None
  report: Report = Report()
  remarks: Callable[[], list[str]] = list

  @property
  def names(self) -> Any:
    """The vocabulary of the targets; None if they are frames or numbers."""
    if self.loss_unit != "nats":
      return None
    return self.vocabularies.get(f"{self.unit}s")

  @property
  def labels(self) -> Any:
    """The vocabulary of the predicted labels; None if none are predicted."""
    predicts = self.unit != "symbol" and self.predict is not None
    return self.names if predicts else None

  @property
  def gives(self) -> str:
    """The function of the outputs.

    `softmax` over the vocabulary `names`, `sigmoid` of each note, or `linear`
    for numbers.
    """
    if self.names is not None:
      return "softmax"
    return "sigmoid" if self.unit == "frame" else "linear"

  @property
  def reads(self) -> str:
    """The singular noun for an input."""
    return "symbol" if "symbols" in self.vocabularies else "frame"

  @property
  def measure(self) -> str:
    """The unit of the mean loss, for example "nats a symbol"."""
    return f"{self.loss_unit} a {self.unit}"

  @property
  def in_bits(self) -> bool:
    """Whether targets are symbols, whose loss is also shown in bits."""
    return self.unit == "symbol" and self.names is not None

  @property
  def writes_text(self) -> bool:
    """Whether the decoder draws symbols; else, where there is one, notes."""
    return self.decoder is not None and self.in_bits


# Makes the experiment of a config; without vocabularies, from its corpus.
Build = Callable[[Config, Mapping[str, Vocabulary] | None], Experiment]


def shapes(experiment: Experiment) -> Params:
  """The parameters' shapes, without computing them."""
  return sharding.cached_jit(experiment.init).eval_shape(jax.random.key(0))
