"""Sections of a report on what a model of symbols or of labels learned."""

from collections.abc import Iterator
from itertools import islice

import jax
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END
from seqrnn.errors import counted, shortened
from seqrnn.experiment import Decoder, Params
from seqrnn.reporting import charts, page
from seqrnn.reporting.page import Section
from seqrnn.reporting.subject import (
  Subject,
  coloured_text,
  encoded,
  passages,
  writer,
)
from seqrnn.runtime import sharding
from seqrnn.sampling.sampler import generator
from seqrnn.sampling.texts import prime_ids
from seqrnn.scoring import confusion, spans
from seqrnn.scoring.evaluation import examine_split
from seqrnn.scoring.predictions import (
  Prediction,
  Ranking,
  number_text,
  predictions,
  rank,
)
from seqrnn.scoring.predictions import mistakes as worst_predictions

_TEMPERATURES = (0.3, 0.6, 0.9, 1.2)
_DRAWN = 480  # Length of a sample.
_LIKELY = 5  # Alternatives to a symbol.
_TEXTS = 1024  # Documents of a coloured text, at most.
# Mistakes are sought among so many texts; so many are shown, each with so many
# characters.
_READ, _MISTAKES, _QUOTED = 2_000, 20, 200
_AROUND = 12  # Symbols on either side of a mistake.
_SHOWN, _GAP_TEXTS = 1200, 32  # Symbols and documents of a gap model's text.


def next_symbols(
  decoder: Decoder, params: Params, ids_BS: np.ndarray, k: int
) -> Ranking:
  """The k most likely symbols at S - 1 positions of texts.

  At position t it has read symbol t and predicts symbol t + 1.
  """

  @sharding.jit
  def scan(params, ids_SB):
    def step(carry, symbols):
      symbol_B, next_B = symbols
      carry, logits_BV = decoder.step(params, carry, symbol_B)
      return carry, rank(logits_BV, logits_BV.argmax(-1), next_B, k)

    carry = decoder.start(ids_SB.shape[1])
    return jax.lax.scan(step, carry, (ids_SB[:-1], ids_SB[1:]))[1]

  ranking = jax.device_get(scan(params, ids_BS.T))
  return Ranking(*(x.swapaxes(0, 1) for x in ranking))


def writing(run: Subject) -> list[Section]:
  """The sections on samples and surprisal."""
  subject = writer(run)
  assert subject is not None, "a task with this section has a decoder"
  shown = [samples(subject)]
  if subject.splits:
    shown.append(surprises(subject, subject.splits[-1]))
  return shown


def samples(subject: Subject) -> Section:
  """Samples at several temperatures."""
  symbols, settings = subject.symbols, subject.config.sample
  decoder, prime = subject.experiment.decoder, settings.prime
  assert decoder is not None, "checked by the caller"
  generate = generator(decoder, length=_DRAWN)
  ids_P, _ = prime_ids(symbols, prime, subject.config.data, settings.seed)
  several = len(settings.temperature) > 1
  texts = []
  for temperature in settings.temperature if several else _TEMPERATURES:
    chunks = generate(subject.params, ids_P[None], settings.seed, temperature)
    ids_T = np.concatenate(list(chunks), axis=1)[0]
    texts.append((f"{temperature:g}", symbols.text(ids_T[ids_T > END])))
  quoted = prime and repr(prime)
  drawn = {"samples": texts, "prime": prime, "quoted": quoted}
  return Section("Samples", "samples", drawn)


def surprises(subject: Subject, split: str) -> Section:
  """A text of a split, coloured by the surprisal of its symbols."""
  decoder = subject.experiment.decoder
  assert decoder is not None, "checked by the caller"
  documents = passages(subject.read(split), page.LONGEST, _TEXTS)
  boundaries = subject.config.data.boundaries
  ids_BS = encoded(documents, subject.symbols, boundaries)
  likely = next_symbols(decoder, subject.params, ids_BS, _LIKELY)

  def rows() -> Iterator[Prediction]:
    each = zip(documents, ids_BS, *likely, strict=True)
    for n, (document, ids_S, *answers) in enumerate(each):
      place_T = np.arange(1, len(ids_S))
      read = [""] * int(ids_S[0] == BEGIN) + [*document.symbols, ""]
      yield Prediction(n, ids_S, read, place_T, ids_S[1:], [], *answers)

  text = coloured_text(subject, rows(), subject.symbols)
  data = {"split": split, "reading": text}
  return Section("Surprisal of a text", "surprisal", data)


def gaps(subject: Subject) -> list[Section]:
  """A text coloured by surprisal, with the predictions of a gap model."""
  if not subject.splits:
    return []
  split = subject.splits[-1]
  documents = passages(subject.read(split), _SHOWN, _GAP_TEXTS)
  rows = predictions(subject.experiment, subject.params, documents, _LIKELY)
  text = coloured_text(subject, rows, subject.symbols)
  data = {"split": split, "reading": text}
  return [Section("Predictions in gaps", "gaps", data)]


def labels(subject: Subject) -> list[Section]:
  """The sections on tags, confusion and, if tags mark any, spans."""
  labels = subject.experiment.labels
  if not subject.splits or labels is None:
    return []
  split, sections = subject.splits[-1], []
  if not subject.experiment.by_text:
    rows = predictions(subject.experiment, subject.params, split, _LIKELY)
    data = {"split": split, "reading": coloured_text(subject, rows, labels)}
    sections.append(Section("Tagged text", "tagged", data))
  _, answers = examine_split(subject.experiment, subject.params, split)
  assert answers is not None, "there are labels"
  table = confusion.confusion_table(labels, answers)
  words = "Counts of predicted labels by true label"
  chart = charts.chart(confusion.draw(table), words, words)
  data = {"split": split, "chart": chart}
  sections.append(Section("Confusion of labels", "confusion", data))
  counts_3K = answers.span_counts(labels)
  if counts_3K is not None:
    rows = spans.span_table(labels, counts_3K)
    sections.append(Section("Spans", "spans", {"split": split, "rows": rows}))
  return sections


def mistakes(subject: Subject) -> list[Section]:
  """The texts or symbols with the least likely true labels, by true label.

  Without labels, the texts with the furthest numbers.
  """
  if not subject.splits:
    return []
  split, unit = subject.splits[-1], subject.config.data.unit
  rows = predictions(subject.experiment, subject.params, split, 1)
  some = [*islice(rows, _READ)]
  by_label: dict[str, list[tuple[str, ...]]] = {}
  for _, p, n in worst_predictions(some):
    answer = number_text(p.numbers)
    if p.likely:
      answer = f"{p.likely[n][0]}, {p.probabilities[n, 0]:.0%}"
    row = shortened(p.source(unit, n), _QUOTED), p.truth[n], answer
    if not subject.experiment.by_text:
      t = p.positions[n]
      row += (p.text(unit, max(t - _AROUND, 0), t + _AROUND + 1),)
    by_label.setdefault(p.truth[n] if p.likely else "", []).append(row)
  each = _MISTAKES // (len(by_label) or 1) or 1
  worst = [row for rows in by_label.values() for row in rows[:each]]
  data = {"split": split, "read": counted(len(some), "text"), "each": each}
  data["rows"] = worst[:_MISTAKES]
  return [Section("Mistakes", "mistakes", data)]
