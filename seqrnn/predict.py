"""predict: the most likely symbols or labels beside the true ones; gaps."""

import csv
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqrnn import files, fileset
from seqrnn.checkpoint import restore_params
from seqrnn.config import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.corpora import from_text, read_asked
from seqrnn.data.encoding import Document
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import (
  PAD,
  UNKNOWN,
  Vocabulary,
  joined,
  printable,
)
from seqrnn.errors import UserError, escaped
from seqrnn.evaluate import shapes
from seqrnn.experiment import KEPT, Experiment, Params, require

_CONTEXT = 24  # Symbols shown on each side of a surprising one.
_SURPRISING = 10  # How many of them.
_UNKNOWN = 20  # Unknown symbols that are named.
_OPEN = ""  # Where a question is; no vocabulary has this symbol.


class Prediction(NamedTuple):
  """What a model says of a sequence: a window, or a stretch of a stream.

  N targets, T inputs, K most likely symbols.

  Attributes:
    document: which of those that were read it is of.
    inputs: ids [T].
    read: what was read, which the vocabulary may lack; "" where that is
      nothing, as at the begin symbol or a gap [T].
    positions: of the targets in the row of outputs [N].
    targets: true ids [N]; UNKNOWN where there is none.
    truth: names of what the targets are in the data, which the vocabulary may
      lack; "" where there is none [N].
    surprisal: -log p(target), in nats [N]; of a symbol that the vocabulary
      lacks, that of the unknown symbol; of such a label it is infinite.
    ids: the most likely ids, best first [N, K].
    probabilities: theirs [N, K].
  """

  document: int
  inputs: np.ndarray
  read: list[str]
  positions: np.ndarray
  targets: np.ndarray
  truth: list[str]
  surprisal: np.ndarray
  ids: np.ndarray
  probabilities: np.ndarray

  def text(self, unit: str, start: int = 0, stop: int | None = None) -> str:
    """What was read from one input to another; a gap is U+FFFD."""
    pairs = zip(self.inputs[start:stop], self.read[start:stop], strict=True)
    some = (symbol or "\ufffd" for i, symbol in pairs if i >= UNKNOWN)
    return joined(some, unit)


@lru_cache(KEPT)
def _ranker(predict: Callable[..., Any], k: int) -> Callable[..., Any]:
  """A jitted function params, carry, batch -> carry, what follows.

  The ids that are most likely and their probabilities [B, N, K], and the
  surprisal of the targets [B, N].
  """

  @jax.jit
  def rank(params, carry, batch):
    carry, logits_BNV = predict(params, carry, batch)
    logs_BNV = jax.nn.log_softmax(logits_BNV)
    logs_BNK, ids_BNK = jax.lax.top_k(logs_BNV, min(k, logs_BNV.shape[-1]))
    true_BN1 = jnp.take_along_axis(
      logs_BNV, batch["targets"][..., None], axis=-1
    )
    return carry, (ids_BNK, jnp.exp(logs_BNK), -true_BN1[..., 0])

  return rank


def predictions(
  experiment: Experiment,
  params: Params,
  split: str | Pieces | list[Document],
  k: int,
) -> Iterator[Prediction]:
  """What the model says of the sequences of a split or of documents."""
  names = experiment.vocabularies["symbols"]
  if experiment.labels is not None:  # The reserved ids are none.
    names = experiment.labels
    k = min(k, len(names.symbols))
  rank = _ranker(experiment.predict, k)
  carry = None
  for batch in experiment.batches(split, 0, ordered=True, named=True):
    read_BT, truth_BN = batch.pop("read"), batch.pop("truth")
    if carry is None:
      carry = experiment.carry(len(batch["inputs"]))
    carry, found = rank(params, carry, batch)
    found = jax.device_get(found)
    for row, weights_N in enumerate(batch["weights"]):
      positions = np.flatnonzero(weights_N)
      if len(positions):
        ids_NK, chances_NK, nll_N = (x[row][positions] for x in found)
        inputs = batch["inputs"][row]
        targets = batch["targets"][row][positions]
        own = truth_BN[row][positions]
        yield Prediction(
          int(batch["document"][row]),
          inputs[inputs != PAD],
          read_BT[row][inputs != PAD].tolist(),
          positions,
          targets,
          [
            printable(symbol, names.unit) if target == UNKNOWN else name
            for target, name, symbol in zip(
              targets, names.names(targets), own, strict=True
            )
          ],
          nll_N,
          ids_NK,
          chances_NK,
        )


@lru_cache(KEPT)
def _chooser(predict: Callable[..., Any]) -> Callable[..., Any]:
  """A jitted function params, inputs_BT -> the likeliest ids, how likely."""

  @jax.jit
  def surest(params, inputs_BT):
    reset_B = jnp.ones(inputs_BT.shape[0], bool)
    batch = {"inputs": inputs_BT, "reset": reset_B}
    _, logits_BTV = predict(params, (), batch)
    chances_BTV = jax.nn.softmax(
      logits_BTV.at[..., : UNKNOWN + 1].set(-jnp.inf)
    )
    return jnp.argmax(chances_BTV, -1), jnp.max(chances_BTV, -1)

  return surest


def fill(
  experiment: Experiment, params: Params, documents: Pieces
) -> tuple[str, list[tuple[int, float]]]:
  """Fills the unknown symbols of a text, the surest one first.

  Each symbol filled is then context for the others.

  Returns:
    the texts filled, a line each, and the ids put in with their probabilities,
    in order.
  """
  symbols = experiment.vocabularies["symbols"]
  surest = _chooser(experiment.predict)
  filled: dict[int, list[int]] = {}
  put = []
  for batch in experiment.batches(documents, 0, ordered=True, named=True):
    inputs_BT = batch["inputs"].copy()
    gaps_BT = inputs_BT == UNKNOWN
    chances_BT = np.zeros(inputs_BT.shape)
    while (open_BT := inputs_BT == UNKNOWN).any():
      best_BT, chance_BT = jax.device_get(surest(params, inputs_BT))
      chance_BT = np.where(open_BT, chance_BT, -1)
      rows = np.flatnonzero(open_BT.any(1))
      places = chance_BT[rows].argmax(1)
      inputs_BT[rows, places] = best_BT[rows, places]
      chances_BT[rows, places] = chance_BT[rows, places]
    for row, document in enumerate(batch["document"].tolist()):
      ids = inputs_BT[row]
      filled.setdefault(document, []).extend(ids[ids != PAD].tolist())
    put += zip(
      inputs_BT[gaps_BT].tolist(), chances_BT[gaps_BT].tolist(), strict=True
    )
  return "\n".join(map(symbols.text, filled.values())), put


def _ask(
  experiment: Experiment, documents: list[Document], gap: str
) -> list[Document]:
  """Documents with the question in them: gaps, or what comes at the end."""

  def ask(tokens: str | list[str]) -> list[str]:
    if not experiment.fills_gaps:
      return [*tokens, _OPEN]
    if isinstance(tokens, list):
      return [_OPEN if token == gap else token for token in tokens]
    parts = tokens.split(gap)
    return [symbol for part in parts for symbol in (_OPEN, *part)][1:]

  return [
    document._replace(symbols=ask(document.symbols), ends=experiment.fills_gaps)
    for document in documents
  ]


def _tell_unknown(symbols: Vocabulary, asked: Pieces, where: str):
  """Says which symbols the vocabulary lacks, each once."""
  found = symbols.unknown(asked.corpus.symbols)
  unknown = [repr(symbol) for symbol in found if symbol != _OPEN]
  if unknown:
    more = len(unknown) - _UNKNOWN
    rest = f" and {more:,} more" if more > 0 else ""
    print(
      f"{where}: read as unknown: {' '.join(unknown[:_UNKNOWN])}{rest}",
      file=sys.stderr,
    )


def shown(text: str) -> str:
  """Text that anyone may have written, for a console."""
  return escape(escaped(text, keep="\n\t"))


def quoted(name: str) -> str:
  """A symbol's name as a table shows it: blanks need marks to be seen."""
  return shown(name if name.strip() else repr(name))


def _show(console: Console, names: Vocabulary, found: Prediction, limit: int):
  """Prints a sequence as a table of its first targets."""
  console.print(f"[bold]{shown(found.text(names.unit))}[/bold]")
  table = Table("position", "truth", "probability", "bits", "most likely")
  for n in range(min(limit, len(found.targets))):
    likely = "  ".join(
      f"{quoted(name)} {chance:.3f}"
      for name, chance in zip(
        names.names(found.ids[n]), found.probabilities[n], strict=True
      )
    )
    if not found.truth[n]:
      table.add_row(str(found.positions[n]), "?", "", "", likely)
    else:
      table.add_row(
        str(found.positions[n]),
        quoted(found.truth[n]),
        f"{math.exp(-found.surprisal[n]):.4f}",
        f"{found.surprisal[n] / math.log(2):.2f}",
        likely,
      )
  console.print(table)
  if len(found.targets) > limit:
    console.print(f"... {len(found.targets) - limit} more in predictions.csv")


def _show_surprising(
  console: Console, names: Vocabulary, found: list[Prediction], fills_gaps: bool
):
  """Prints the most surprising symbols of a text, in context."""
  known = [
    (float(p.surprisal[n]), p, n)
    for p in found
    for n in range(len(p.targets))
    if p.truth[n]
  ]
  known.sort(key=lambda item: -item[0])
  table = Table("bits", "symbol", "in context", "rather", title="surprises")
  for surprisal, p, n in known[:_SURPRISING]:
    # The inputs before the target; behind it, those after it.
    place = int(p.positions[n]) + (0 if fills_gaps else 1)
    if len(p.targets) == 1 and not fills_gaps:
      place = len(p.inputs)
    left = p.text(names.unit, max(place - _CONTEXT, 0), place)
    right = p.text(names.unit, place + 1, place + 1 + _CONTEXT)
    symbol = p.truth[n]
    context = f"{shown(left)}[reverse]{shown(symbol)}[/reverse]{shown(right)}"
    table.add_row(
      f"{surprisal / math.log(2):.2f}",
      quoted(symbol),
      context.replace("\n", "\\n"),
      quoted(names.names([p.ids[n][0]])[0]),
    )
  if known:
    console.print(table)


def _write(
  path: Path,
  symbols: Vocabulary,
  labels: Vocabulary | None,
  found: list[Prediction],
):
  """Writes predictions.csv: a row a target.

  Where targets are labels, a row has what was labelled, too. Truth and
  surprisal are empty where no truth is known. A label that training has not
  seen is one, with a surprisal of inf.
  """
  names = symbols if labels is None else labels
  labelled = labels is not None
  what = "label" if labelled else "symbol"
  likely = range(1, 1 + max(p.ids.shape[1] for p in found))
  with files.written(path) as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
      ["sequence", "position"]
      + ["input"] * labelled
      + ["truth", "surprisal_nats"]
      + [f"{part}_{k}" for k in likely for part in (what, "probability")]
    )
    for sequence, p in enumerate(found):
      one = len(p.targets) == 1
      for n, truth in enumerate(p.truth):
        place = (0, None) if one else (p.positions[n], p.positions[n] + 1)
        best = zip(names.names(p.ids[n]), p.probabilities[n], strict=True)
        writer.writerow(
          [sequence, p.positions[n]]
          + [p.text(symbols.unit, *place)] * labelled
          + [truth, f"{p.surprisal[n]:.6g}" if truth else ""]
          + [x for name, chance in best for x in (name, f"{chance:.6g}")]
        )


def _asked(experiment: Experiment, config: Config) -> Pieces | None:
  """What the user asks about; None: a split.

  Raises:
    UserError: it cannot be read, or is empty.
  """
  settings, data = config.predict, config.data
  if settings.text is not None:
    unit = experiment.vocabularies["symbols"].unit
    documents = from_text(settings.text, unit, data)
    if not documents:
      raise UserError(f"config.predict.text={settings.text!r}: no symbol there")
  elif settings.path is not None:
    labels = experiment.labels
    known = None if labels is None else set(labels.symbols)
    found = read_asked("config.predict.path", settings.path, data, known)
    if labels is not None:
      return splits.whole(found)
    documents = list(splits.whole(found).documents())
  else:
    return None
  if experiment.labels is None:
    documents = _ask(experiment, documents, settings.gap)
  return splits.given(documents, data.unit)


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> list[Prediction]:
  """Predicts; prints tables and writes predictions.csv.

  Raises:
    UserError: the task does not predict symbols or labels, or text and path are
      both given, or empty.
  """
  settings = config.predict
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  require(experiment, "predict", config.task)
  names = experiment.vocabularies["symbols"]
  params, _ = restore_params(workdir, config, shapes(experiment))
  console = Console(highlight=False)
  if settings.text is not None and settings.path is not None:
    raise UserError(
      f"config.predict.text={settings.text!r},"
      f" config.predict.path={settings.path!r}: give one of the two"
    )
  asked = _asked(experiment, config)
  if asked is None:
    every = predictions(experiment, params, settings.split, settings.top_k)
    found = list(itertools.islice(every, settings.sequences))
  else:
    _tell_unknown(names, asked, settings.path or "text")
    found = list(predictions(experiment, params, asked, settings.top_k))
    if experiment.fills_gaps:
      text, put = fill(experiment, params, asked)
      if put:
        console.print(f"filled: [bold]{shown(text)}[/bold]")
        for number, (symbol, chance) in enumerate(put, 1):
          name = quoted(names.names([symbol])[0])
          console.print(f"  gap {number}: {name}  {chance:.3f}")
  if experiment.present is not None:
    console.print(experiment.present(found))
  else:
    for prediction in found[: settings.sequences]:
      _show(console, names, prediction, settings.symbols)
    _show_surprising(console, names, found, experiment.fills_gaps)
  with fileset.results(workdir, "predict", "written to") as folder:
    _write(folder / "predictions.csv", names, experiment.labels, found)
  return found
