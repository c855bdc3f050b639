"""predict: the most likely symbols or labels beside the true ones; gaps."""

import csv
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqrnn import files, fileset
from seqrnn.checkpoint import restore_params
from seqrnn.config import Config
from seqrnn.data import vocabulary
from seqrnn.data.corpora import Document, from_text, parse
from seqrnn.data.vocabulary import PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError, escaped
from seqrnn.evaluate import shapes
from seqrnn.experiment import Experiment, Params

_CONTEXT = 24  # Symbols shown on each side of a surprising one.
_SURPRISING = 10  # How many of them.


class Prediction(NamedTuple):
  """What a model says of a sequence: a window, or a stretch of a stream.

  N targets, T inputs, K most likely symbols.

  Attributes:
    inputs: ids [T].
    positions: of the targets in the row of outputs [N].
    targets: true ids [N]; UNKNOWN where there is none.
    surprisal: -log p(target), in nats [N].
    ids: the most likely ids, best first [N, K].
    probabilities: theirs [N, K].
  """

  inputs: np.ndarray
  positions: np.ndarray
  targets: np.ndarray
  surprisal: np.ndarray
  ids: np.ndarray
  probabilities: np.ndarray


def predictions(
  experiment: Experiment, params: Params, split: str | list[Document], k: int
) -> Iterator[Prediction]:
  """What the model says of the sequences of a split or of documents."""
  if "labels" in experiment.vocabularies:  # The reserved ids are none.
    k = min(k, len(experiment.vocabularies["labels"].symbols))

  @jax.jit
  def rank(params, carry, batch):
    carry, logits_BNV = experiment.predict(params, carry, batch)
    chances_BNV = jax.nn.log_softmax(logits_BNV)
    best_BNK = jax.lax.top_k(chances_BNV, min(k, chances_BNV.shape[-1]))
    true_BN1 = jnp.take_along_axis(
      chances_BNV, batch["targets"][..., None], axis=-1
    )
    return carry, best_BNK, -true_BN1[..., 0]

  carry = None
  for batch in experiment.batches(split, 0, ordered=True):
    if carry is None:
      carry = experiment.carry(len(batch["inputs"]))
    carry, (chances_BNK, ids_BNK), nll_BN = rank(params, carry, batch)
    found = jax.device_get((ids_BNK, jnp.exp(chances_BNK), nll_BN))
    for row, weights_N in enumerate(batch["weights"]):
      positions = np.flatnonzero(weights_N)
      if len(positions):
        ids_NK, chances_NK, nll_N = (x[row][positions] for x in found)
        inputs = batch["inputs"][row]
        yield Prediction(
          inputs[inputs != PAD],
          positions,
          batch["targets"][row][positions],
          nll_N,
          ids_NK,
          chances_NK,
        )


def fill(
  experiment: Experiment, params: Params, documents: list[Document]
) -> tuple[str, list[tuple[int, float]]]:
  """Fills the unknown symbols of a text, the surest one first.

  Each symbol filled is then context for the others.

  Returns:
    the text filled, and the ids put in with their probabilities, in order.
  """
  symbols = experiment.vocabularies["symbols"]

  @jax.jit
  def surest(params, inputs_BT):
    reset_B = jnp.ones(inputs_BT.shape[0], bool)
    batch = {"inputs": inputs_BT, "reset": reset_B}
    _, logits_BTV = experiment.predict(params, (), batch)
    chances_BTV = jax.nn.softmax(
      logits_BTV.at[..., : UNKNOWN + 1].set(-jnp.inf)
    )
    return jnp.argmax(chances_BTV, -1), jnp.max(chances_BTV, -1)

  filled, put = [], []
  for batch in experiment.batches(documents, 0, ordered=True):
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
    filled.append(inputs_BT[inputs_BT != PAD])
    put += zip(
      inputs_BT[gaps_BT].tolist(), chances_BT[gaps_BT].tolist(), strict=True
    )
  return symbols.text(np.concatenate(filled)), put


def _absent(symbols: Vocabulary) -> str:
  """A symbol that is not in the vocabulary; it stands for an open question."""
  private = (chr(code) for code in range(0xE000, 0xF900))
  # To a template that is one blank, all of them are known.
  return next((c for c in private if symbols.unknown([c])), "")


def _ask(
  experiment: Experiment, documents: list[Document], gap: str
) -> list[Document]:
  """Documents with the question in them: gaps, or what comes at the end.

  A task with labels asks about a document as it is.
  """
  symbols = experiment.vocabularies["symbols"]
  absent = _absent(symbols)

  def ask(tokens):
    joined = isinstance(tokens, str)
    if experiment.unit == "label":
      return tokens
    if experiment.fills_gaps and joined:
      return tokens.replace(gap, absent)
    if experiment.fills_gaps:
      return [absent if token == gap else token for token in tokens]
    return tokens + absent if joined else [*tokens, absent]

  asked = []
  for document in documents:
    unknown = symbols.unknown(ask(document.symbols))
    unknown = [symbol for symbol in unknown if symbol != absent]
    if unknown:
      print(
        f"{document.name}: read as unknown: {' '.join(map(repr, unknown))}",
        file=sys.stderr,
      )
    whole = experiment.fills_gaps or experiment.unit == "label"
    asked.append(document._replace(symbols=ask(document.symbols), ends=whole))
  return asked


def shown(text: str) -> str:
  """Text that anyone may have written, for a console."""
  return escape(escaped(text, keep="\n\t"))


def quoted(name: str) -> str:
  """A symbol's name as a table shows it: blanks need marks to be seen."""
  return shown(name if name.strip() else repr(name))


def _show(console: Console, names: Vocabulary, found: Prediction, limit: int):
  """Prints a sequence as a table of its first targets."""
  console.print(f"[bold]{shown(names.text(found.inputs))}[/bold]")
  table = Table("position", "truth", "probability", "bits", "most likely")
  for n in range(min(limit, len(found.targets))):
    likely = "  ".join(
      f"{quoted(name)} {chance:.3f}"
      for name, chance in zip(
        names.names(found.ids[n]), found.probabilities[n], strict=True
      )
    )
    if found.targets[n] == UNKNOWN:
      table.add_row(str(found.positions[n]), "?", "", "", likely)
    else:
      table.add_row(
        str(found.positions[n]),
        quoted(names.names([found.targets[n]])[0]),
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
    if p.targets[n] != UNKNOWN
  ]
  known.sort(key=lambda item: -item[0])
  table = Table("bits", "symbol", "in context", "rather", title="surprises")
  for surprisal, p, n in known[:_SURPRISING]:
    # The inputs before the target; behind it, those after it.
    place = int(p.positions[n]) + (0 if fills_gaps else 1)
    if len(p.targets) == 1 and not fills_gaps:
      place = len(p.inputs)
    left = names.text(p.inputs[max(place - _CONTEXT, 0) : place])
    right = names.text(p.inputs[place + 1 : place + 1 + _CONTEXT])
    symbol = names.names([p.targets[n]])[0]
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
  vocabularies: dict[str, Vocabulary],
  found: list[Prediction],
):
  """Writes predictions.csv: a row a target.

  Where targets are labels, a row has what was labelled, too.
  """
  symbols = vocabularies["symbols"]
  names = vocabularies.get("labels", symbols)
  labelled = names is not symbols
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
      for n, target in enumerate(p.targets):
        one = len(p.targets) == 1
        read = p.inputs if one else p.inputs[p.positions[n], None]
        best = zip(names.names(p.ids[n]), p.probabilities[n], strict=True)
        truth = [names.names([target])[0], f"{p.surprisal[n]:.6g}"]
        writer.writerow(
          [sequence, p.positions[n]]
          + [symbols.text(read)] * labelled
          + (["", ""] if target == UNKNOWN else truth)
          + [x for name, chance in best for x in (name, f"{chance:.6g}")]
        )


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> list[Prediction]:
  """Predicts; prints tables and writes predictions.csv.

  Raises:
    UserError: the task is not one of symbols, or text and path are both given,
      or empty.
  """
  settings = config.predict
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  if experiment.unit == "frame":
    raise UserError(
      f"--mode=predict: task={config.task!r} predicts frames, which no table of"
      " symbols shows; its modes are train, evaluate, sample, describe, search,"
      " report"
    )
  names = experiment.vocabularies["symbols"]
  params, _ = restore_params(workdir, config, shapes(experiment))
  console = Console(highlight=False)
  if settings.text is not None and settings.path is not None:
    raise UserError(
      f"config.predict.text={settings.text!r},"
      f" config.predict.path={settings.path!r}: give one of the two"
    )
  documents = None
  if settings.text is not None:
    documents = from_text(settings.text, names.unit, config.data)
  elif settings.path is not None:
    path = Path(settings.path)
    try:
      path.stat()
    except OSError as error:
      raise UserError(
        f"config.predict.path={settings.path!r}: {error.strerror}"
      ) from None
    documents = parse(
      path, names.unit, settings.path, config.data.errors, config.data
    )
  if documents == []:
    raise UserError("config.predict.text, config.predict.path: no symbol there")
  if documents is None:
    found = []
    for prediction in predictions(
      experiment, params, settings.split, settings.top_k
    ):
      found.append(prediction)
      if len(found) == settings.sequences:
        break
  else:
    asked = _ask(experiment, documents, settings.gap)
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
    _write(folder / "predictions.csv", experiment.vocabularies, found)
  return found
