"""Spans: the runs of tags that BIO and BIOES mark, and their counts by type.

In BIO a span is B-type, I-type, I-type, ...; a span that I-type begins counts,
too, so that IOB1, where only a span next to one of its type begins with B, is
read as well (the rule of conlleval). In BIOES a span is S-type, or B-type,
I-type, ..., E-type, and other tags are no span (seqeval's strict mode).
BILOU is BIOES with L for E and U for S.
"""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.batches.sequences import Sequences
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.experiment import Batch, Spans, Totals

# What a tag may do: begin a span, continue it, be continued, end it.
_BEGINS, _INSIDE, _OPENS, _CLOSES = 1, 2, 4, 8
_TYPE = 16  # The code of a tag is _TYPE * type + these bits; -1 outside.
_OUTSIDE = -1
_WHOLE = _BEGINS + _CLOSES
_SCHEMES = [
  {"B": _WHOLE + _OPENS, "I": _WHOLE + _OPENS + _INSIDE},
  *(
    {"B": _BEGINS + _OPENS, "I": _INSIDE + _OPENS}
    | {end: _INSIDE + _CLOSES, single: _WHOLE}
    for end, single in ("ES", "LU")
  ),
]
_TAG = re.compile(r"([A-Z])-(.+)", re.DOTALL)


def scheme(names: Sequence[str]) -> dict[str, int] | None:
  """The scheme that all tags follow; None: none."""
  tags = [_TAG.fullmatch(name) for name in names if name != "O"]
  letters = {tag and tag[1] for tag in tags}
  return next((rules for rules in _SCHEMES if letters <= rules.keys()), None)


def _types(labels: Vocabulary) -> list[str]:
  return sorted({name[2:] for name in labels.symbols if name != "O"})


def codes(labels: Vocabulary, names: Sequence[str]) -> np.ndarray:
  """The code of each tag, by the scheme of the labels.

  The types of tags that the labels lack are numbered after theirs, so that
  spans of such types are never found.
  """
  rules = scheme(labels.symbols)
  assert rules is not None, "checked by the caller"
  types = {name: n for n, name in enumerate(_types(labels))}
  numbers = []
  for name in names:
    tag = _TAG.fullmatch(name)
    kind, does = f" {name}", _WHOLE
    if tag is not None and tag[1] in rules:
      kind, does = tag[2], rules[tag[1]]
    code = _TYPE * types.setdefault(kind, len(types)) + does
    numbers.append(_OUTSIDE if name == "O" else code)
  return np.array(numbers, np.int32)


def allowed(labels: Vocabulary) -> tuple[np.ndarray, ...] | None:
  """Which tags may follow each other, begin and end a text.

  Returns:
    bool [C, C], [C] and [C]; None: the tags follow no scheme. Nor do they if a
    span of some type cannot begin or end, as in IOB1 without B-type.
  """
  names = labels.symbols
  if scheme(names) is None:
    return None
  code_C = codes(labels, names)
  kind_C, does_C = code_C // _TYPE, np.where(code_C < 0, _CLOSES, code_C)
  inside_C, opens_C = does_C & _INSIDE > 0, does_C & _OPENS > 0
  closes_C = does_C & _CLOSES > 0
  for kind in set(kind_C[kind_C >= 0].tolist()):
    of_kind_C = kind_C == kind
    begins_C = of_kind_C & ~inside_C
    if not begins_C.any() or not (of_kind_C & closes_C).any():
      return None
  if not (closes_C & ~inside_C).any():  # A text of one word has no tags.
    return None
  same_CC = kind_C[:, None] == kind_C[None]
  within_CC = same_CC & opens_C[:, None] & inside_C[None]
  return within_CC | (closes_C[:, None] & ~inside_C[None]), ~inside_C, closes_C


def warn(
  rules: tuple[np.ndarray, ...] | None, labels: Vocabulary, sequences: Sequences
):
  """Warns on stderr if tags of the training split do not fit their scheme.

  Args:
    rules: as `allowed` gives them.
    labels: the tags.
    sequences: those of the split.
  """
  if rules is None:
    return
  allowed_CC, *_ = rules
  label_N = sequences.table[sequences.ids] - (UNKNOWN + 1)
  first_N = np.zeros(len(label_N), bool)
  first_N[sequences.bounds[:-1] + sequences.begins + sequences.shifts] = True
  broken_N = ~allowed_CC[label_N[:-1], label_N[1:]] & ~first_N[1:]
  places = np.flatnonzero(broken_N)
  if len(places):
    a, b = labels.names(label_N[places[0] : places[0] + 2] + UNKNOWN + 1)
    print(
      f"train split: {len(places):,} of {len(label_N):,} tags follow another"
      f" against their scheme, such as {b!r} after {a!r}; the CRF never"
      " predicts that, unless model.crf_constraints=False",
      file=sys.stderr,
    )


def _spans(
  code_BT: jax.Array, weights_BT: jax.Array, first_BT: jax.Array
) -> tuple[jax.Array, ...]:
  """Where spans end, where each began, and its type; all [B, T].

  No span goes on where `first_BT`.
  """
  code_BT = jnp.where(weights_BT > 0, code_BT, _OUTSIDE)
  span_BT = code_BT >= 0
  type_BT = jnp.where(span_BT, code_BT // _TYPE, -1)
  does = lambda bit: span_BT & (code_BT & bit > 0)
  T = code_BT.shape[1]
  place_1T = jnp.arange(T)[None]
  same_BT = type_BT == jnp.roll(type_BT, 1, axis=1)
  goes_on_BT = does(_INSIDE) & jnp.roll(does(_OPENS), 1, axis=1) & same_BT
  goes_on_BT &= ~first_BT
  # The last place that does not go on, and whether a span begins there.
  event_BT = jnp.where(goes_on_BT, -1, 2 * place_1T + does(_BEGINS))
  event_BT = jax.lax.cummax(event_BT, axis=1)
  followed_BT = jnp.roll(goes_on_BT, -1, axis=1) & (place_1T < T - 1)
  ends_BT = does(_CLOSES) & (event_BT % 2 == 1) & ~followed_BT
  return ends_BT, event_BT // 2, type_BT


def counter(
  labels: Vocabulary,
) -> tuple[Spans | None, Callable[[Batch, jax.Array], Totals]]:
  """The spans of tags, and a function batch, best_BT -> precision, recall, F1.

  The figures are of spans if the tags follow a scheme, of the rarer tag if
  there are two tags; else there are none. In training, a span that a window
  cuts counts as two in BIO, and not at all in BIOES.
  """
  names = labels.symbols
  if scheme(names) is not None:
    types = _types(labels)
    # An unknown tag is a span by itself, of a type that none is.
    code_V = codes(labels, ["O", "O", "O", "", *names])

    def count(batch, best_BT):
      by_id_V, weights_BT = jnp.asarray(code_V), batch["weights"]
      # Ids lack some of the tags; rows may have several texts.
      code_BT = batch.get("spans", by_id_V[batch["targets"]])
      first = batch.get("first", jnp.arange(best_BT.shape[1])[None] == 0)
      true_BT, *true = _spans(code_BT, weights_BT, first)
      best_BT, *best = _spans(by_id_V[best_BT], weights_BT, first)
      same_BT = (true[0] == best[0]) & (true[1] == best[1])

      def by_type(ends_BT, type_BT):
        index_BT = jnp.minimum(type_BT, len(types))  # The last: all others.
        type_BTK = jax.nn.one_hot(index_BT, len(types) + 1)
        return jnp.sum(type_BTK * ends_BT[..., None], axis=(0, 1))

      return jnp.stack(
        [
          by_type(true_BT, true[1]),
          by_type(best_BT, best[1]),
          by_type(true_BT & best_BT & same_BT, true[1]),
        ]
      )

    return Spans(types, count), lambda *batch: ratios(count(*batch).sum(1))
  if len(names) > 2:
    return None, lambda *_: {}
  rarer = len(labels) - 1  # The most frequent comes first.

  def count_tag(batch, best_BT):
    true_BT, found_BT = batch["targets"] == rarer, best_BT == rarer
    terms_3BT = jnp.stack([true_BT, found_BT, true_BT & found_BT])
    return ratios(jnp.sum(terms_3BT * batch["weights"][None], axis=(1, 2)))

  return None, count_tag


def ratios(counts_3: Any) -> Totals:
  """Precision, recall and F1 as totals, of true, predicted, correct spans."""
  true, predicted, both = counts_3
  return {
    "precision": (both, predicted),
    "recall": (both, true),
    "f1": (2 * both, true + predicted),
  }


def figures(counts_3: np.ndarray) -> dict[str, float]:
  """Precision, recall and F1; 0 where there is nothing to count."""
  pairs = ratios(counts_3).items()
  return {name: float(a / b) if b else 0.0 for name, (a, b) in pairs}


COLUMNS = "type", "precision", "recall", "f1", "true", "predicted", "correct"


def span_table(types: Sequence[str], counts_3K: np.ndarray) -> list[list[Any]]:
  """The rows of spans.csv: all spans, then those of each type, frequent first.

  All types that training has not seen share one row.
  """
  names = np.array(["all", *types, "<unknown>"], object)
  counts_3K = np.column_stack([counts_3K.sum(1), counts_3K]).astype(int)
  order = np.argsort(-counts_3K[0, 1:], kind="stable") + 1
  rows = []
  for n in [0, *order[counts_3K[:, order].any(axis=0)]]:
    counts_3 = counts_3K[:, n]
    rows.append([names[n], *figures(counts_3).values(), *counts_3.tolist()])
  return rows
