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

from seqrnn.errors import UserError

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


class Report(NamedTuple):
  """What report.html says of a task.

  Attributes:
    about: the task in a sentence. `{word}` stands for what is read, `{count}`
      for the number of labels.
    sections: on what a model has learned, in the order of the page; names in
      SECTIONS of seqrnn/modes/report.py.
    target: the word for what is predicted; "": that for what is read where it
      has a vocabulary, else the task's unit.
  """

  about: str = ""
  sections: tuple[str, ...] = ()
  target: str = ""


class Experiment(NamedTuple):
  """A task: its data, its loss and how it decodes.

  It knows nothing of optimizers, devices or the files of a run. A capability
  is a field; one that is None is a mode that the task does not have (`modes`).

  A batch holds at least `inputs` [B, T], `targets` and `weights` [B, N], where
  N is T, or 1 where a sequence has one target, and `reset` [B]: the rows whose
  carry starts anew. A target of weight 0 counts for nothing. Inputs are ids of
  the vocabulary `symbols`; without it they are frames, [B, T, V].

  Attributes:
    vocabularies: name -> Vocabulary; what the run keeps of its training split.
    init: key -> params.
    loss: params, carry, batch, key -> mean loss over the weight of the batch,
      (carry, totals). Totals have `loss`, and any other figures by name. `key`
      is None in evaluation: nothing is random.
    facts: split -> {"documents", "symbols", "crc32"}: how much data, which;
      and their "origin", where they change with it.
    batches: split or list of Documents, epoch -> Batches of numpy arrays. By
      keyword: `batch_size`, and batches then hold `document` and `place` [B],
      which one a row is of and where in all symbols it begins; `ordered`, one
      document after the other; `named`, and they hold what the data themselves
      say, as objects: `read` [B, T] and `truth` [B, N], "" where it is nothing.
    predict: params, carry, batch -> carry, outputs_BNV: logits, or numbers;
      None: cannot predict, and --mode=describe has no outputs to show.
    forbidden: T -> bool_NT, the inputs s that output t must not depend on;
      None where no input is a target. The leak probe tests it. Of a model that
      trains several heads, those of one after those of the other; `heads` of a
      batch [B, heads] says how much each counts in the loss.
    carry: batch size -> the initial carry; () where batches share no state.
    score: params, carry, batch -> carry, nll_BN in nats; None: cannot score.
    decoder: None: cannot sample.
    writer: params -> the task of a language model that is a part of this one,
      and its params; None: what the decoder writes is by the whole model.
    heads: name -> like `predict`, logits of `targets`: what detection may ask,
      `forward` of the past alone, and others; none: cannot detect.
    fills_gaps: whether `predict` at t reads both sides of t and not t.
    unless: the setting with which a task without a decoder has one, as messages
      name it; "": there is none.
    unit: what a target is, each with its own loss, as a singular noun; a step
      counts them. Where there is a vocabulary of that name, `symbols` for
      `symbol` or `labels` for `label`, targets are ids of it and `predict`
      gives logits of them; labels are of what is read, a text is then read as
      it is, and nothing is asked about its end. A `frame` of notes is 0 or 1
      for each and is drawn each by itself. Any other word, `sequence` say, is
      for a target that is a number, or several; one that is unknown is NaN.
    loss_unit: of the loss: `nats`, or what else it is, `squared error` say.
    present: Predictions -> what --mode=predict shows on a console; None: the
      tables that it has for symbols and for numbers.
    report: what report.html says of the task.
  """

  vocabularies: dict[str, Any]
  init: Callable[[jax.Array], Params]
  loss: Callable[..., tuple[jax.Array, tuple[Carry, Totals]]]
  facts: Callable[[str], dict[str, Any]]
  batches: Callable[..., Any]
  predict: Callable[[Params, Carry, Batch], tuple[Carry, jax.Array]] | None
  forbidden: Callable[[int], Any] | None
  carry: Callable[[int], Carry] = lambda _: ()
  score: Callable[[Params, Carry, Batch], tuple[Carry, jax.Array]] | None = None
  decoder: Decoder | None = None
  writer: Callable[[Params], tuple["Experiment", Params]] | None = None
  heads: Mapping[str, Callable[..., tuple[Carry, jax.Array]]] = {}
  fills_gaps: bool = False
  unless: str = ""
  unit: str = "symbol"
  loss_unit: str = "nats"
  present: Callable[[Any], Any] | None = None
  report: Report = Report()

  @property
  def names(self) -> Any:
    """The vocabulary of what is predicted; None: frames or numbers are."""
    if self.loss_unit != "nats":
      return None
    return self.vocabularies.get(f"{self.unit}s")

  @property
  def labels(self) -> Any:
    """The vocabulary of the labels that it gives; None: it gives none."""
    predicts = self.unit != "symbol" and self.predict is not None
    return self.names if predicts else None

  @property
  def gives(self) -> str:
    """What an output is.

    `softmax` over the vocabulary `names`, `sigmoid` of each note, or `linear`,
    a number.
    """
    if self.names is not None:
      return "softmax"
    return "sigmoid" if self.unit == "frame" else "linear"

  @property
  def reads(self) -> str:
    """What an input is, as a singular noun."""
    return "symbol" if "symbols" in self.vocabularies else "frame"

  @property
  def measure(self) -> str:
    """What the loss is a mean of, as "nats a symbol"."""
    return f"{self.loss_unit} a {self.unit}"

  @property
  def in_bits(self) -> bool:
    """Whether the loss is that of a choice of symbols, also shown in bits."""
    return self.unit == "symbol" and self.names is not None

  @property
  def writes_text(self) -> bool:
    """Whether the decoder draws symbols; else, where there is one, notes."""
    return self.decoder is not None and self.in_bits


# Those that `lacks` in `modes` does not name, every task has.
MODES = (
  "train",
  "evaluate",
  "predict",
  "sample",
  "describe",
  "search",
  "detect",
  "report",
)
_WHY_NOT = {
  "predict": "has no labels, numbers or next symbols to predict for a text",
  "sample": "cannot write one symbol after the other",
  "describe": "has no outputs to show",
  "detect": "says of no event how likely it is",
}


def modes(experiment: Experiment) -> tuple[str, ...]:
  """The modes of run.py that a task has: what its fields can do."""
  lacks = {
    "predict": experiment.predict is None
    or experiment.reads != "symbol"
    or experiment.gives == "sigmoid",
    "sample": experiment.decoder is None,
    "describe": experiment.predict is None,
    "detect": not experiment.heads,
  }
  return tuple(mode for mode in MODES if not lacks.get(mode))


def require(
  experiment: Experiment,
  mode: str,
  task: str,
  where: str = "",
  why: str = "",
):
  """Refuses a mode that a task does not have.

  Args:
    experiment: the task.
    mode: the mode.
    task: its name.
    where: what the message begins with; empty: the flag of the mode.
    why: what the task cannot do; empty: in the words of run.py's modes.

  Raises:
    UserError: says why, and which modes there are.
  """
  known = modes(experiment)
  if mode in known:
    return
  why = why or _WHY_NOT[mode]
  if mode == "sample" and experiment.unless:
    why += f" unless {experiment.unless}"
  raise UserError(
    f"{where or f'--mode={mode}'}: task={task!r} {why}; its modes are"
    f" {', '.join(known)}"
  )


def shapes(experiment: Experiment) -> Params:
  """The parameters' shapes, without computing them."""
  return jax.eval_shape(experiment.init, jax.random.key(0))
