"""Spans: the runs of tags that BIO and BIOES mark, and their counts by type.

In BIO a span is B-type, I-type, I-type, ...; a span that I-type begins counts,
too, so that IOB1, where only a span next to one of its type begins with B, is
read as well (the rule of conlleval). In BIOES a span is S-type, or B-type,
I-type, ..., E-type, and other tags are no span (seqeval's strict mode).
BILOU is BIOES with L for E and U for S.
"""

import re
from collections.abc import Sequence

import numpy as np

from seqrnn.data.batches.sequences import Sequences
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import report

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


def types(labels: Vocabulary) -> list[str]:
  """The types of spans that tags mark; [] if the tags follow no scheme.

  Of two other tags, each place of the rarer one is a span.
  """
  names = labels.symbols
  if scheme(names) is not None:
    return sorted({name[2:] for name in names if name != "O"})
  return [names[1]] if len(names) == 2 else []  # The most frequent comes first.


def codes(labels: Vocabulary, names: Sequence[str]) -> np.ndarray:
  """The code of each tag, by the `types` of the labels.

  The types of tags that the labels lack are numbered after theirs, so that
  spans of such types are never found.
  """
  rules = scheme(labels.symbols) or {}
  outside = "O" if rules else labels.symbols[0]
  types_by_name = {name: n for n, name in enumerate(types(labels))}
  numbers = []
  for name in names:
    tag = _TAG.fullmatch(name)
    kind, does = f" {name}" if rules else name, _WHOLE
    if tag is not None and tag[1] in rules:
      kind, does = tag[2], rules[tag[1]]
    code = _TYPE * types_by_name.setdefault(kind, len(types_by_name)) + does
    numbers.append(_OUTSIDE if name == outside else code)
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


def warn(allowed_CC: np.ndarray, sequences: Sequences):
  """Warns on stderr if tags of the training split do not fit their scheme.

  Args:
    allowed_CC: the first result of `allowed`.
    sequences: the tags of the split.
  """
  label_N = sequences.table[sequences.ids] - (UNKNOWN + 1)
  first_N = np.zeros(len(label_N), bool)
  first_N[sequences.bounds[:-1] + sequences.begins + sequences.shifts] = True
  broken_N = ~allowed_CC[label_N[:-1], label_N[1:]] & ~first_N[1:]
  if broken_N.any():
    report(
      f"train split: {broken_N.sum():,} of {len(label_N):,} tags follow another"
      " against their scheme; the CRF never predicts that, unless"
      " model.crf_constraints=False"
    )


def _spans(code_N: np.ndarray, begins_N: np.ndarray) -> tuple[np.ndarray, ...]:
  """Where spans end, where each began, and its type; all [N].

  No span continues where a text begins.
  """
  is_span_N = code_N >= 0
  type_N = np.where(is_span_N, code_N // _TYPE, -1)
  does = lambda bit: is_span_N & (code_N & bit > 0)
  continues_N = does(_INSIDE) & np.roll(does(_OPENS), 1) & ~begins_N
  continues_N &= type_N == np.roll(type_N, 1)
  # The last place that does not continue, and whether a span begins there.
  event_N = 2 * np.arange(len(code_N)) + does(_BEGINS)
  event_N = np.maximum.accumulate(np.where(continues_N, -1, event_N))
  ends_N = does(_CLOSES) & (event_N % 2 == 1) & ~np.roll(continues_N, -1)
  return ends_N, event_N // 2, type_N


def count_spans(
  labels: Vocabulary,
  true_N: np.ndarray,
  best_N: np.ndarray,
  begins_N: np.ndarray,
) -> np.ndarray:
  """The numbers of true, predicted and correct spans [3, types + 1].

  The last column is of types that training has not seen.

  Args:
    labels: the tags.
    true_N: the codes of the true tags.
    best_N: the codes of the predicted tags.
    begins_N: whether a text begins there; the first one does.
  """
  K = len(types(labels))
  (true_N, *true), (best_N, *best) = (
    _spans(code_N, begins_N) for code_N in (true_N, best_N)
  )
  same_N = (true[0] == best[0]) & (true[1] == best[1])
  pairs = (
    (true_N, true[1]),
    (best_N, best[1]),
    (true_N & best_N & same_N, true[1]),
  )
  by_type = [
    np.bincount(np.minimum(type_N[ends_N], K), minlength=K + 1)
    for ends_N, type_N in pairs
  ]
  return np.stack(by_type)


def figures(counts_3: np.ndarray) -> dict[str, float]:
  """Precision, recall and F1; 0 where there is nothing to count."""
  true, predicted, both = counts_3.tolist()
  pairs = (both, predicted), (both, true), (2 * both, true + predicted)
  ratios = (a / b if b else 0.0 for a, b in pairs)
  return dict(zip(("precision", "recall", "f1"), ratios, strict=True))


COLUMNS = "type", "precision", "recall", "f1", "true", "predicted", "correct"


def span_table(labels: Vocabulary, counts_3K: np.ndarray) -> list[list]:
  """The rows of spans.csv: all spans, then those of each type, frequent first.

  All types that training has not seen share one row.
  """
  names = np.array(["all", *types(labels), "<unknown>"], object)
  counts_3K = np.column_stack([counts_3K.sum(1), counts_3K]).astype(int)
  order = np.argsort(-counts_3K[0, 1:], kind="stable") + 1
  rows = []
  for n in [0, *order[counts_3K[:, order].any(axis=0)]]:
    counts_3 = counts_3K[:, n]
    rows.append([names[n], *figures(counts_3).values(), *counts_3.tolist()])
  return rows
