"""One tag for each symbol of a text: p(tag at t | text).

A deep bidirectional LSTM reads the text, including the symbol at t: no input is
a target. With `model.letters` a second LSTM reads the characters of each word,
and its features are appended to the embedding, so that words that training has
not seen have features, too. With `model.affixes` the features are those of its
prefixes, suffixes and shape. With `model.crf` the tags are a chain: the loss is
-log p(all tags | text), predictions are the most likely sequence, and
probabilities are its marginals.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from seqrnn.config import derived
from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.batches import labelled
from seqrnn.data.batches.segments import Segments, Split
from seqrnn.data.batches.sequences import Sequences, encode
from seqrnn.data.read.words import affix_vocabulary, affixes, characters
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import END, PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import (
  Batch,
  Carry,
  Decode,
  Experiment,
  Params,
  Report,
  Totals,
)
from seqrnn.experiments import classification
from seqrnn.experiments.classification import VOCABULARIES as VOCABULARIES
from seqrnn.models import crf, features, losses, network
from seqrnn.runtime.compiled import Pure
from seqrnn.scoring import spans
from seqrnn.scoring.predictions import Prediction, console_text

_NEVER = -1000.0  # The log of the probability of a tag that rules forbid.
# Bool [C, C], [C], [C]: which tags may follow each other, begin and end a text.
Rules = tuple[np.ndarray, ...]
Spell = Callable[[Sequence[str]], np.ndarray]  # Words -> ids, [words, ...].


def prepare(config: Config) -> dict[str, Vocabulary]:
  """The vocabularies of the training split.

  Raises:
    UserError: it has no tags, or a single one.
  """
  pieces = splits.checked_reader(config)("train")
  if pieces.corpus.tags is None:
    forms = "columns, parallel, conllu, spaces"
    raise labelled.without_answers(config, "tags", forms)
  tags = _tags(pieces)
  counts = tags.counts() * [name != "" for name in tags.corpus.symbols]
  return classification.make(config, pieces, tags.corpus.symbols, counts)


def _tags(pieces: Pieces) -> Pieces:
  """The tags of the symbols, in the same places."""
  return dataclasses.replace(pieces, corpus=pieces.corpus.tags)


def build(config: Config, vocabularies: Mapping[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are."""
  data, symbols = config.data, vocabularies["symbols"]
  labels = vocabularies["labels"]
  letters, spell = spelling(config, symbols)
  outputs = len(labels.symbols)
  model = network.text_model(config, len(symbols), False, outputs, letters)
  segments = Segments(config, symbols, length=data.window, minimum=1)
  rules = None
  if config.model.crf and config.model.crf_constraints:
    rules = spans.allowed(labels)
  tags = labelled.once_a_split(
    partial(tag_ids, segments, labels, data.boundaries, rules)
  )
  beside = partial(columns, segments, labels, tags, spell, config.model.crf)

  def stored(split: str) -> np.ndarray:
    sequences = tags(split)
    assert sequences is not None, "a split has tags"
    return sequences.table[sequences.ids]

  task = Experiment(
    vocabularies=vocabularies,
    init=Pure(network.init, model),
    loss=classification.loss_of(model, config),
    facts=partial(classification.facts, segments, stored),
    batches=partial(labelled.batches, segments, beside, None),
    predict=Pure(classification.predict, model),
    forbidden=None,
    unit="label",
    report=Report(
      "It gives each {word} of a text one of {count} tags.",
      ("decisions", "mistakes"),
    ),
    present=restored if data.format == "spaces" else None,
  )
  if not config.model.crf:
    return task
  decide = Pure(decode, model, None if rules is None else labels)
  return task._replace(
    init=Pure(init, model, outputs),
    loss=Pure(loss, model),
    predict=Pure(predict, decide),
    decode=decide,
  )


def spelling(
  config: Config, symbols: Vocabulary
) -> tuple[nn.Module | None, Spell | None]:
  """The module that reads the spelling of words, and a function words -> ids.

  Both are None if words are read by their ids alone.
  """
  model, products = config.model, network.products(config.model)
  if model.letters is None and model.affixes is None:
    return None, None
  if model.letters is None:
    longest = model.affixes
    known = affix_vocabulary(symbols, longest)
    count = 2 * longest + 1
    module = features.Affixes(len(known), model.embedding_size, count, products)
    return module, partial(affixes, known, longest)
  characters_known = symbols.characters()
  shape, size = derived.speller(model), len(characters_known)
  body = network.stack(shape, size, bidirectional=True)
  module = features.Letters(body, size, model.letters, products)
  return module, partial(characters, characters_known)


def init(model: network.SequenceModel, C: int, key: jax.Array) -> Params:
  """New parameters, with those of the CRF of C tags."""
  return {**network.init(model, key), "crf": crf.init(C)}


def loss(
  model: network.SequenceModel,
  params: Params,
  carry: Carry,
  batch: Batch,
  key: jax.Array | None,
) -> tuple[jax.Array, tuple[Carry, Totals]]:
  """Like `classification.loss_of`; the mean is -log p(all tags of a row) a tag.

  It sums over the tags in the place of a tag that training has not seen. The
  accuracy is left to evaluations, which decode: the Viterbi algorithm takes a
  tenth of a training step. Rules restrict predictions, not the loss, which
  would be infinite for a text that breaks them.
  """
  carry, logits_BTC = network.predict(model, params, carry, batch, key)
  targets_BT, weights_BT = batch["targets"], batch["weights"]
  nll_B = crf.surprisal(
    crf.TagScores(**params["crf"]),
    logits_BTC,
    targets_BT - (UNKNOWN + 1),
    weights_BT > 0,
    _edges(batch),
  )
  known_BT = jnp.where(targets_BT > UNKNOWN, weights_BT, 0)
  total, weight = jnp.sum(nll_B), jnp.sum(known_BT)
  mean = total / jnp.where(weight > 0, weight, 1)
  return mean, (carry, {"loss": (total, weight)})


def _edges(batch: Batch) -> jax.Array:
  return jnp.stack([batch["begins"], batch["ends"]], axis=1)


def _ruled(chain: Params, ruled: Vocabulary | None) -> crf.TagScores:
  """The scores of the CRF, -inf where the rules of its tags forbid one."""
  scores = crf.TagScores(**chain)
  rules = None if ruled is None else spans.allowed(ruled)
  if rules is None:
    return scores
  allowed = [
    jnp.where(jnp.asarray(rule), score, -jnp.inf)
    for rule, score in zip(rules, scores, strict=True)
  ]
  return crf.TagScores(*allowed)


def decode(
  model: network.SequenceModel,
  ruled: Vocabulary | None,
  params: Params,
  carry: Carry,
  batch: Batch,
) -> tuple[Carry, tuple[jax.Array, jax.Array]]:
  """The carry, log marginals by ids [B, T, V], and the best ids [B, T]."""
  carry, logits_BTC = network.predict(model, params, carry, batch)
  terms = logits_BTC, batch["inputs"] > END, _edges(batch)
  chain = _ruled(params["crf"], ruled)
  # Forbidden tags have probability 0, but rank above the reserved ids.
  log_p_BTC = jnp.maximum(crf.marginals(chain, *terms), _NEVER)
  best_BT = crf.viterbi(chain, *terms) + UNKNOWN + 1
  return carry, (losses.over_ids(log_p_BTC), best_BT)


def predict(
  decide: Decode, params: Params, carry: Carry, batch: Batch
) -> tuple[Carry, jax.Array]:
  """The carry and the log marginals that `decide` gives."""
  carry, (log_p_BTV, _) = decide(params, carry, batch)
  return carry, log_p_BTV


def tag_ids(
  segments: Segments,
  labels: Vocabulary,
  boundaries: bool,
  rules: Rules | None,
  split: Split,
) -> Sequences | None:
  """The tags of the symbols, PAD for none; None: the documents have none.

  Raises:
    UserError: a split has no tags.
  """
  pieces = segments.pieces(split)
  if pieces.corpus.tags is None:
    if isinstance(split, str):
      raise UserError(f"the {split} split has no tags")
    return None
  tags = _tags(pieces)
  sequences = encode(tags, labels, boundaries)
  if isinstance(split, str):
    names = tags.corpus.symbols
    some = [names[i] for i in np.flatnonzero(tags.counts()) if names[i]]
    classification.check_seen(labels, some, split)
    sequences.table[[name == "" for name in names]] = PAD
  if rules is not None and split == "train":
    spans.warn(rules[0], sequences)
  return sequences


def columns(
  segments: Segments, labels: Vocabulary, tags, spell, edges: bool, split: Split
) -> Callable[[Batch], dict[str, np.ndarray]]:
  """A function of a batch of segments -> its tags, and other columns.

  Args:
    segments: the documents.
    labels: the tags by id.
    tags: split -> as `tag_ids`.
    spell: words -> ids; None: words are read by their ids alone.
    edges: whether it has `begins` and `ends` [B], true for the rows with these
      edges of their documents.
    split: or documents.

  Returns:
    as `targets`: where there are tags, also `truth`, and `spans` where training
    has not seen all of them; `letters`, the ids of `spell` [B, T, ...], if it
    is not None.
  """
  pieces, true = segments.pieces(split), tags(split)
  arrays: dict[str, Callable[..., np.ndarray]] = {}
  if true is not None:
    names = _tags(pieces).corpus.symbols
    arrays |= {"targets": true.gather, "truth": true.reader(names)}
    if labels.unknown([*filter(None, names)]) and spans.types(labels):
      coded = true._replace(table=spans.codes(labels, names))
      arrays["spans"] = coded.gather
  if spell is not None:  # Words never seen have a spelling, too.
    words = pieces.corpus.symbols
    table = np.pad(spell(words), [(UNKNOWN + 1, 0), (0, 0)])
    every = segments.sequences(split)
    every = every._replace(table=np.arange(len(words)) + UNKNOWN + 1)
    arrays["letters"] = lambda *rows: table[every.gather(*rows)]
  if edges:
    whole = segments.sequences(split)
    first = whole.bounds[:-1] + whole.begins
    last = whole.bounds[1:] - whole.ends
    arrays["begins"] = lambda document, place, *_: place <= first[document]
    arrays["ends"] = lambda document, _, stop, __: stop >= last[document]
  return partial(targets, arrays)


def targets(columns: dict[str, Callable], batch: Batch) -> Batch:
  """The tags of a batch of segments, and what else `columns` have of it."""
  inputs_BT, place_B = batch["segment"], batch["place"]
  stop_B = place_B + (inputs_BT != PAD).sum(1)
  rows = batch["document"], place_B, stop_B, inputs_BT.shape[1]
  asked = {
    "targets": np.full_like(inputs_BT, UNKNOWN),
    "weights": (inputs_BT > END).astype(np.float32),  # Others have no tag.
  }
  if "read" in batch:
    asked["truth"] = np.full(inputs_BT.shape, "", object)  # Slow to look up.
  wanted = columns.keys() - ({"truth"} - asked.keys())
  asked |= {name: columns[name](*rows) for name in wanted}
  asked["weights"] *= asked["targets"] != PAD
  return asked


def restored(rows: list[Prediction]) -> str:
  """The texts with the spaces that their symbols are tagged with."""
  lines: dict[int, str] = {}
  for p in rows:
    lines[p.document] = lines.get(p.document, "") + "".join(
      p.read[place] + " " * (best == "space")
      for place, best in zip(p.positions, p.best, strict=True)
    )
  return "restored: " + "\n".join(map(console_text, lines.values()))
