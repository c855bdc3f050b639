"""One tag for each symbol of a text: p(tag at t | text).

A deep bidirectional LSTM reads the text, including the symbol at t: no input is
a target. With `model.letters` a second LSTM reads the characters of each word,
and its features are appended to the embedding, so that words that training has
not seen have features, too.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Group
from rich.table import Table

from experiments import classification, parts
from experiments.classification import VOCABULARIES as VOCABULARIES
from seqrnn.data import splits
from seqrnn.data.segments import Segments, Split
from seqrnn.data.sequences import Sequences, as_read, encode
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import END, PAD, UNKNOWN, Vocabulary, printable
from seqrnn.data.windows import Batches
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Experiment, Report, Totals
from seqrnn.inference.predictions import (
  Prediction,
  console_text,
  likely,
  quoted,
)
from seqrnn.models import losses, network
from seqrnn.settings import config as config_lib
from seqrnn.settings.config import Config

_LETTERS = 20  # Characters of a word that are read.
_BIO = re.compile(r"O|[BI]-.+")


def prepare(config: Config) -> dict[str, Vocabulary]:
  """The vocabularies of the training split.

  Raises:
    UserError: it has no tags, or a single one.
  """
  data = config.data
  pieces = splits.reader(config)("train")
  if pieces.corpus.tags is None:
    raise UserError(
      f"data.source={data.source!r}, data.format={data.format!r}: gives no"
      " tags, which task='tagging' needs: data.format=columns, parallel,"
      " conllu, spaces"
    )
  tags = _tags(pieces)
  return classification.make(config, pieces, tags.corpus.symbols, tags.counts())


def _tags(pieces: Pieces) -> Pieces:
  """The tags of the symbols, in the same places."""
  return dataclasses.replace(pieces, corpus=pieces.corpus.tags)


def build(config: Config, vocabularies: dict[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are.

  Raises:
    UserError: settings of another kind of model.
  """
  data, symbols = config.data, vocabularies["symbols"]
  labels = vocabularies["labels"]
  config_lib.refuse_unless(config, classification.PLAIN, classification.WHY)
  characters = None
  if config.model.letters is not None:
    characters = symbols.characters()
  model = parts.sequence_model(
    config, vocabularies, pooled=False, letters=letters(config, characters)
  )
  segments = Segments(config, symbols, length=data.window, minimum=1)
  tags = parts.once_a_split(partial(tag_ids, segments, labels, data.boundaries))
  beside = partial(columns, segments, labels, tags, characters)
  count = partial(figures, counter(labels))
  objective = network.Objective(config.train.label_smoothing, count)
  return Experiment(
    vocabularies=vocabularies,
    init=partial(network.init, model),
    loss=partial(parts.loss, model, objective),
    facts=partial(classification.facts, segments, partial(stored, tags)),
    batches=partial(batches, segments, beside),
    predict=partial(classification.predict, model),
    forbidden=None,
    unit="label",
    report=Report(
      "It gives each {word} of a text one of {count} tags.", ("decisions",)
    ),
    present=restored
    if data.format == "spaces"
    else partial(present, config.predict, symbols.unit),
  )


def letters(
  config: Config, characters: Vocabulary | None
) -> network.Letters | None:
  """The LSTM that reads a word's characters; None: none does.

  Raises:
    UserError: there are no words, or no embedding beside which it stands.
  """
  width = config.model.letters
  if characters is None:
    return None
  if config.model.embedding_size is None or config.data.unit != "word":
    raise UserError(
      f"model.letters={width}: needs data.unit=word and model.embedding_size,"
      " beside which it stands"
    )
  shape = config.model.copy_and_resolve_references()
  shape.update(hidden_size=width, embedding_size=width, layers=1)
  # The penalties are those of the words' outputs.
  shape.update(activation_penalty=0.0, change_penalty=0.0)
  body = network.stack(shape, len(characters), bidirectional=True)
  products = network.products(config.model)
  return network.Letters(body, len(characters), width, products)


def tag_ids(
  segments: Segments, labels: Vocabulary, boundaries: bool, split: Split
) -> Sequences | None:
  """The tags of the symbols, in the same places; None: they have none.

  Raises:
    UserError: a split has no tags.
  """
  pieces = segments.pieces(split)
  if pieces.corpus.tags is None:
    if isinstance(split, str):
      raise UserError(f"the {split} split has no tags")
    return None
  found = _tags(pieces)
  if isinstance(split, str):
    names = found.corpus.symbols
    some = np.flatnonzero(found.counts())
    classification.warn_unseen(labels, [names[i] for i in some], split)
  return encode(found, labels, boundaries)


def stored(tags, split: str) -> np.ndarray:
  """The ids of all tags of a split, as they are stored."""
  sequences = tags(split)
  return sequences.table[sequences.ids]


def columns(
  segments: Segments, labels: Vocabulary, tags, characters, split: Split
) -> dict[str, Callable[..., np.ndarray]]:
  """The arrays of a batch beside its symbols, as functions of rows.

  Args:
    segments: the documents.
    labels: the tags by id.
    tags: split -> as `tag_ids`.
    characters: by id; None: words are read by their ids alone.
    split: or documents.

  Returns:
    names in a batch -> functions like `Sequences.gather`: `targets` and
    `truth`, where there are tags; `spans`, where training has not seen all of
    them; `letters`, where there are characters [B, T, _LETTERS].
  """
  pieces, true = segments.pieces(split), tags(split)
  found: dict[str, Callable[..., np.ndarray]] = {}
  if true is not None:
    names = _tags(pieces).corpus.symbols
    found |= {"targets": true.gather, "truth": as_read(true, names)}
    if labels.unknown(names):
      spans = true._replace(table=spans_of(labels, names))
      found["spans"] = spans.gather
  if characters is not None:  # Words never seen have characters, too.
    words = pieces.corpus.symbols
    table = np.zeros((len(words) + UNKNOWN + 1, _LETTERS), np.int32)
    for n, word in enumerate(words, UNKNOWN + 1):
      table[n, : len(word)] = characters.encode(word[:_LETTERS])
    own = segments.sequences(split)
    own = own._replace(table=np.arange(len(words)) + UNKNOWN + 1)
    found["letters"] = lambda *rows: table[own.gather(*rows)]
  return found


def batches(
  segments: Segments, beside, split: Split, epoch: int, **how
) -> Batches:
  """Batches of windows; the targets are the tags of their symbols.

  `beside` is a function split -> as `columns`.
  """
  make = partial(targets, beside(split))
  return segments.batches(split, epoch, placed=True, **how).map(make)


def targets(columns: dict[str, Callable], batch: Batch) -> Batch:
  """Inputs, targets and other columns of a batch of segments."""
  inputs_BT, place_B = batch["segment"], batch["place"]
  stop_B = place_B + (inputs_BT != PAD).sum(1)
  rows = batch["document"], place_B, stop_B, inputs_BT.shape[1]
  made = {
    "inputs": inputs_BT,
    "targets": np.full_like(inputs_BT, UNKNOWN),
    "weights": (inputs_BT > END).astype(np.float32),  # Others have no tag.
    "reset": batch["reset"],
  }
  if "read" in batch:
    made |= {name: batch[name] for name in ("document", "place", "read")}
    made["truth"] = np.full(inputs_BT.shape, "", object)
  wanted = made.keys() | {"spans", "letters"}  # Truth takes long to look up.
  return made | {n: f(*rows) for n, f in columns.items() if n in wanted}


def figures(
  count, batch: Batch, logits_BTC: jax.Array, *terms: Any
) -> tuple[jax.Array, Totals]:
  """`losses.label_cross_entropy`, and what `count` of `counter` gives."""
  loss, totals = losses.label_cross_entropy(logits_BTC, *terms)
  best_BT = losses.best_ids(logits_BTC)
  target = batch["targets"], best_BT, batch["weights"], batch.get("spans")
  return loss, totals | count(*target)


def restored(found: list[Prediction]) -> str:
  """The texts with the spaces that their symbols are tagged with."""
  lines: dict[int, str] = {}
  for p in found:
    lines[p.document] = lines.get(p.document, "") + "".join(
      p.read[place] + " " * (best == "space")
      for place, best in zip(p.positions, p.best, strict=True)
    )
  return "restored: " + "\n".join(map(console_text, lines.values()))


def present(settings: Config, unit: str, found: list[Prediction]) -> Group:
  """Tables of symbols with their tags; see `classification.present`."""
  tables = []
  for p in found[: settings.sequences]:
    tables.append(Table("symbol", "truth", "tags by probability"))
    for n, place in enumerate(p.positions[: settings.symbols]):
      tables[-1].add_row(
        quoted(printable(p.read[place], unit)),
        quoted(p.truth[n]) if p.truth[n] else "?",
        likely(p, n),
      )
  return Group(*tables)


def counter(labels: Vocabulary) -> Callable[..., Totals]:
  """A function of ids targets_BT, best_BT, weights_BT -> precision, recall, F1.

  A fourth argument is `spans_of` the true tags, if labels lack some of them.

  They are of spans if all tags are O, B-type or I-type, of the rarer tag if
  there are two tags; else there are none. A span that a window cuts counts as
  two.
  """
  names = labels.symbols
  if all(map(_BIO.fullmatch, names)):
    # An unknown tag is a span that begins, of a type that none is.
    return partial(count_spans, spans_of(labels, ["O", "O", "O", "", *names]))
  if len(names) > 2:
    return lambda *_: {}
  return partial(count_tag, len(labels) - 1)  # The most frequent comes first.


def count_tag(
  wanted: int, targets_BT, best_BT, weights_BT, _spans_BT=None
) -> Totals:
  """Precision, recall and F1 of the tag with the id `wanted`."""
  true_BT, found_BT = targets_BT == wanted, best_BT == wanted
  return ratios(true_BT, found_BT, true_BT & found_BT, weights_BT)


def count_spans(
  span_V: np.ndarray, targets_BT, best_BT, weights_BT, spans_BT=None
) -> Totals:
  """Precision, recall and F1 of spans; span_V is `spans_of` all ids."""
  by_id_V = jnp.asarray(span_V)
  true = by_id_V[targets_BT] if spans_BT is None else spans_BT
  true_BT, start_BT, type_BT = ends_of_spans(true, weights_BT)
  found_BT, other_BT, own_BT = ends_of_spans(by_id_V[best_BT], weights_BT)
  same_BT = (start_BT == other_BT) & (type_BT == own_BT)
  return ratios(true_BT, found_BT, true_BT & found_BT & same_BT, weights_BT)


def ends_of_spans(spans_BT, weights_BT) -> tuple[jax.Array, ...]:
  """Where spans end, where each began, and its type; of `spans_of` tags."""
  outside_BT = (spans_BT < 0) | (weights_BT == 0)
  type_BT = jnp.where(outside_BT, -2, spans_BT // 2)
  other_BT = type_BT != jnp.roll(type_BT, 1, axis=1)
  first_1T = jnp.arange(spans_BT.shape[1])[None] == 0
  starts_BT = (spans_BT % 2 == 1) | other_BT | first_1T
  starts_BT &= ~outside_BT
  after_BT = jnp.roll(starts_BT | outside_BT, -1, axis=1)
  last_1T = jnp.roll(first_1T, -1, axis=1)
  ends_BT = ~outside_BT & (after_BT | last_1T)
  place_BT = jnp.where(starts_BT, jnp.arange(spans_BT.shape[1])[None], -1)
  return ends_BT, jax.lax.cummax(place_BT, axis=1), type_BT


def spans_of(labels: Vocabulary, names: Sequence[str]) -> np.ndarray:
  """Codes of tags: -1 outside of spans; else 2 * type, + 1 if a span begins.

  Tags that the labels lack have types of their own, so that the spans of such
  tags are never found.
  """
  types = {name[2:]: n for n, name in enumerate(labels.symbols)}
  found = []
  for name in names:
    if name == "O":
      found.append(-1)
      continue
    bio = _BIO.fullmatch(name) is not None
    kind = name[2:] if bio else f" {name}"
    place = types.setdefault(kind, len(types) + len(labels.symbols))
    found.append(2 * place + (not bio or name[0] == "B"))
  return np.array(found, np.int32)


def ratios(true_BT, found_BT, both_BT, weights_BT) -> Totals:
  """Precision, recall and F1 as totals."""
  terms_3BT = jnp.stack([true_BT, found_BT, both_BT])
  true, found, both = jnp.sum(terms_3BT * weights_BT[None], axis=(1, 2))
  return {
    "precision": (both, found),
    "recall": (both, true),
    "f1": (2 * both, true + found),
  }
