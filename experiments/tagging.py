"""One tag for each symbol of a text: p(tag at t | text).

A deep bidirectional LSTM reads the text, the symbol at t with it: nothing it
reads is a target. Beside a word's embedding may stand what an LSTM makes of its
characters (`model.letters`), which also tells of words never seen.
"""

import dataclasses
import functools
import re
import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Group
from rich.table import Table

from experiments.classification import PLAIN, WHY, make, tell_unseen
from experiments.classification import VOCABULARIES as VOCABULARIES
from seqrnn import config as config_lib
from seqrnn.config import Config
from seqrnn.data import splits
from seqrnn.data.documents import Document
from seqrnn.data.segments import Segments
from seqrnn.data.sequences import Sequences, as_read, encode
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import END, PAD, UNKNOWN, Vocabulary, printable
from seqrnn.data.windows import Batches
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Experiment, Totals
from seqrnn.inference.predictions import console_text, quoted
from seqrnn.models import losses, network

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
      " tags, which task='tagging' needs: data.format=columns, conllu, spaces"
    )
  tags = _tags(pieces)
  return make(config, pieces, tags.corpus.symbols, tags.counts())


def _tags(pieces: Pieces) -> Pieces:
  """The tags of the symbols, in the same places."""
  return dataclasses.replace(pieces, corpus=pieces.corpus.tags)


def build(config: Config, vocabularies: dict[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are.

  Raises:
    UserError: settings of another kind of model.
  """
  data, width = config.data, config.model.letters
  symbols, labels = vocabularies["symbols"], vocabularies["labels"]
  config_lib.refuse_unless(config, PLAIN, WHY)
  letters = None
  characters = Vocabulary("char", tuple(sorted({*"".join(symbols.symbols)})))
  if width is not None:
    if config.model.embedding_size is None or data.unit != "word":
      raise UserError(
        f"model.letters={width}: needs data.unit=word and model.embedding_size,"
        " beside which it stands"
      )
    shape = config.model.copy_and_resolve_references()
    shape.update(hidden_size=width, embedding_size=width, layers=1)
    # The penalties are those of the words' outputs.
    shape.update(activation_penalty=0.0, change_penalty=0.0)
    letters = network.Letters(
      network.stack(shape, len(characters), bidirectional=True),
      len(characters),
      width,
    )
  model = network.sequence_model(
    config.model,
    network.stack(
      config.model, len(symbols), bidirectional=config.model.bidirectional
    ),
    len(symbols),
    pooled=False,
    outputs=len(labels.symbols),
    letters=letters,
  )
  segments = Segments(config, symbols, length=data.window, minimum=1)
  count = counter(labels)

  @functools.cache
  def tags(split: str) -> Sequences:
    pieces = segments.pieces(split)
    if pieces.corpus.tags is None:
      raise UserError(f"the {split} split has no tags")
    found = _tags(pieces)
    names = found.corpus.symbols
    some = np.flatnonzero(found.counts())
    tell_unseen(labels, [names[i] for i in some], split)
    return encode(found, labels, data.boundaries)

  def own_tags(split: str | Pieces | Sequence[Document]) -> Sequences | None:
    if isinstance(split, str):
      return tags(split)
    pieces = segments.pieces(split)
    if pieces.corpus.tags is None:
      return None
    return encode(_tags(pieces), labels, data.boundaries)

  def batches(
    split: str | Pieces | Sequence[Document], epoch: int, **how
  ) -> Batches:
    sequences = segments.sequences(split)
    true = own_tags(split)
    tag_names, span_V = None, None
    if true is not None:
      names = _tags(segments.pieces(split)).corpus.symbols
      tag_names = as_read(true, names)
      if labels.unknown(names):
        span_V = spans_of(labels, names)
    # The words themselves, whose characters are read: also those unknown.
    words = segments.pieces(split).corpus.symbols if letters else []
    table = np.zeros((len(words) + UNKNOWN + 1, _LETTERS), np.int32)
    for n, word in enumerate(words, UNKNOWN + 1):
      table[n, : len(word)] = characters.encode(word[:_LETTERS])
    own = sequences._replace(table=np.arange(len(words)) + UNKNOWN + 1)

    def targets(batch: Batch) -> Batch:
      inputs_BT = batch["segment"]
      document_B, place_B = batch["document"], batch["place"]
      stop_B = sequences.bounds[document_B + 1]
      row = document_B, place_B, stop_B, inputs_BT.shape[1]
      padding_BT = inputs_BT == PAD  # A window may end before its document.
      tags_BT = np.full_like(inputs_BT, UNKNOWN)
      if true is not None:
        tags_BT = true.gather(*row)
        tags_BT[padding_BT] = PAD
      made = {
        "inputs": inputs_BT,
        "targets": tags_BT,
        # Begin and end have no tag.
        "weights": (inputs_BT > END).astype(np.float32),
        "reset": batch["reset"],
      }
      if letters is not None:
        words_BT = own.gather(*row)
        words_BT[padding_BT] = PAD
        made["letters"] = table[words_BT]
      if true is not None and span_V is not None:
        places = true._replace(table=np.arange(len(span_V)))
        own_BT = np.where(inputs_BT > END, places.gather(*row), 0)
        made["spans"] = np.where(inputs_BT > END, span_V[own_BT], -1)
      if "read" in batch:
        made |= {name: batch[name] for name in ("document", "read")}
        made["truth"] = np.full(inputs_BT.shape, "", object)
        if tag_names is not None:
          made["truth"] = tag_names(*row)
      return made

    return segments.batches(split, epoch, placed=True, **how).map(targets)

  def predict(params, carry, batch):
    ids_BT = batch["inputs"]
    start = model.initial_carry(ids_BT.shape[0])
    _, logits_BTC = network.apply(
      model, params, ids_BT, start, letters_BTL=batch.get("letters")
    )
    return carry, losses.over_ids(logits_BTC)

  def figures(spans_BT, logits_BTC, targets_BT, weights_BT, *regularisers):
    loss, totals = losses.label_cross_entropy(
      logits_BTC, targets_BT, weights_BT, *regularisers
    )
    best_BT = losses.best_ids(logits_BTC)
    return loss, totals | count(targets_BT, best_BT, weights_BT, spans_BT)

  def loss(params, carry, batch, key):
    start = model.initial_carry(batch["inputs"].shape[0])
    smoothing = config.train.label_smoothing
    loss, (_, totals) = network.loss(
      model,
      params,
      batch,
      start,
      key,
      smoothing,
      functools.partial(figures, batch.get("spans")),
    )
    return loss, (carry, totals)

  def facts(split: str) -> dict:
    found = segments.facts(split)
    sequences = tags(split)
    crc32 = zlib.crc32(sequences.table[sequences.ids].data, found["crc32"])
    return {**found, "crc32": crc32}

  def present(found):
    if data.format == "spaces":
      space = labels.encode(["space"])[0]
      lines: dict[int, str] = {}
      for p in found:
        lines[p.document] = lines.get(p.document, "") + "".join(
          console_text(p.read[place]) + " " * int(ids[0] == space)
          for place, ids in zip(p.positions, p.ids, strict=True)
        )
      return "restored: " + "\n".join(lines.values())
    tables = []
    for p in found[: config.predict.sequences]:
      tables.append(Table("symbol", "truth", "tags by probability"))
      places = p.positions[: config.predict.symbols]
      for n, place in enumerate(places):
        names = map(quoted, labels.names(p.ids[n]))
        chances = zip(names, p.probabilities[n], strict=True)
        tables[-1].add_row(
          quoted(printable(p.read[place], symbols.unit)),
          quoted(p.truth[n]) if p.truth[n] else "?",
          "  ".join(f"{name} {chance:.3f}" for name, chance in chances),
        )
    return Group(*tables)

  return Experiment(
    vocabularies=vocabularies,
    init=lambda key: network.init(model, key),
    carry=lambda _: (),
    loss=loss,
    facts=facts,
    batches=batches,
    predict=predict,
    score=None,
    decoder=None,
    forbidden=None,
    unit="label",
    present=present,
  )


def counter(labels: Vocabulary) -> Callable[..., Totals]:
  """A function of ids targets_BT, best_BT, weights_BT -> precision, recall, F1.

  A fourth argument is `spans_of` the true tags, where labels lack some of them.

  Of spans, where all tags are O, B-type or I-type; of the rarer tag, where
  there are two; else of nothing. A span that a window cuts counts as two.
  """
  names = labels.symbols
  if not all(map(_BIO.fullmatch, names)):
    if len(names) > 2:
      return lambda *_: {}
    wanted = len(labels) - 1  # The most frequent one comes first.

    def count_one(targets_BT, best_BT, weights_BT, _=None):
      true_BT, found_BT = targets_BT == wanted, best_BT == wanted
      return ratios(true_BT, found_BT, true_BT & found_BT, weights_BT)

    return count_one
  # An unknown tag is a span that begins, of a type that none is.
  span_V = spans_of(labels, ["O", "O", "O", "", *names])

  def spans(spans_BT, weights_BT):
    """Where spans end, where each began, and its type."""
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

  def count_spans(targets_BT, best_BT, weights_BT, spans_BT=None):
    by_id_V = jnp.asarray(span_V)
    true = by_id_V[targets_BT] if spans_BT is None else spans_BT
    true_BT, start_BT, type_BT = spans(true, weights_BT)
    found_BT, other_BT, own_BT = spans(by_id_V[best_BT], weights_BT)
    same_BT = (start_BT == other_BT) & (type_BT == own_BT)
    return ratios(true_BT, found_BT, true_BT & found_BT & same_BT, weights_BT)

  return count_spans


def spans_of(labels: Vocabulary, names: Sequence[str]) -> np.ndarray:
  """What each tag is to a span: -1, outside; else twice its type, plus begins.

  Tags that the labels lack have types of their own, so that they are missed.
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
