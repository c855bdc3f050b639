"""Sections of a report on what a model of symbols or of labels learned."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import jax
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, Vocabulary
from seqrnn.errors import counted
from seqrnn.experiment import Params
from seqrnn.reporting import charts, neurons, page
from seqrnn.reporting.neurons import TextReading
from seqrnn.reporting.page import Section, section
from seqrnn.reporting.subject import (
  Passage,
  Subject,
  coloured_text,
  encoded,
  passages,
  shown,
  writer,
)
from seqrnn.runtime import sharding
from seqrnn.sampling.sampler import generator
from seqrnn.sampling.texts import prime_ids
from seqrnn.scoring import confusion, spans
from seqrnn.scoring.evaluation import examiner
from seqrnn.scoring.predictions import (
  Prediction,
  number_text,
  predictions,
)

_TEMPERATURES = (0.3, 0.6, 0.9, 1.2)
_DRAWN = 480  # Length of a sample.
_LIKELY = 5  # Alternatives to a symbol.
_ROWS, _LENGTH = 32, 1500  # Passages of a text, and symbols of each.
_PASSAGE = 560  # Symbols of a text coloured by a unit.
_CLEAR = 0.1  # The least share of its variance that a shown unit explains.
# The texts among which mistakes are sought, those shown, characters of each.
_READ, _MISTAKES, _QUOTED = 2_000, 20, 200
_AROUND = 12  # Symbols on either side of a mistake.
_SHOWN = 1200  # Symbols of a long passage, and of the gap model's text.


class ReadSplit(NamedTuple):
  """Passages of a split, and the model's predictions and states on them.

  Attributes:
    split: its name.
    texts: the passages.
    ids: their symbols [B, S].
    reading: the model's output on them; at position t it has read symbol t.
  """

  split: str
  texts: list[Passage]
  ids: np.ndarray
  reading: TextReading


def writing(run: Subject) -> list[Section]:
  """The sections on samples, surprisal and units."""
  subject = writer(run)
  if subject is None:
    return []
  parts = [samples(subject)]
  if not subject.splits:
    return parts
  decoder = subject.experiment.decoder
  assert decoder is not None, "checked by the caller"
  read = neurons.reader(decoder, _LIKELY)
  sources = _sources(subject, read)
  parts.append(surprises(subject, sources[-1]))
  if sources[-1].reading.states.shape[-1]:
    if len(sources) > 1:
      parts += _interpretable(subject, read, *sources)
    if gates := neurons.saturation(
      subject.config, subject.params, decoder, sources[-1].ids
    ):
      parts.append(section("Gates", "gates", gates=gates))
  return parts


def _sources(
  subject: Subject, read: Callable[[Params, np.ndarray], TextReading]
) -> list[ReadSplit]:
  """The last two splits, padded to one shape so that one program reads both."""
  texts = {
    split: passages(subject.read(split), _ROWS, _LENGTH, _ROWS * _LENGTH)
    for split in subject.splits[-2:]
  }
  boundaries = subject.config.data.boundaries
  ids = {n: encoded(t, subject.symbols, boundaries) for n, t in texts.items()}
  rows, size = np.max([ids_BS.shape for ids_BS in ids.values()], axis=0)
  sources = []
  for split, ids_BS in ids.items():
    B, S = ids_BS.shape
    ids_BS = np.pad(ids_BS, ((0, rows - B), (0, size - S)))
    reading = read(subject.params, ids_BS)
    sources.append(ReadSplit(split, texts[split], ids_BS, reading))
  return sources


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
  return section(
    "Samples", "samples", samples=texts, prime=prime, quoted=quoted
  )


def surprises(subject: Subject, source: ReadSplit) -> Section:
  """A text, coloured by the surprisal of its symbols."""

  def rows() -> Iterator[Prediction]:
    each = zip(source.texts, source.ids, *source.reading, strict=False)
    for n, ((document, _), ids_S, *answers, _) in enumerate(each):
      place_T = np.arange(1, len(ids_S))
      read = [""] * int(ids_S[0] == BEGIN) + [*document.symbols, ""]
      yield Prediction(n, ids_S, read, place_T, ids_S[1:], [], *answers)

  title = "Surprisal of a text"
  part = coloured_text(subject, rows(), subject.symbols)
  return section(title, "surprisal", split=source.split, reading=part)


def gaps(subject: Subject) -> list[Section]:
  """A text coloured by surprisal, with the predictions of a gap model."""
  if not subject.facts:
    return []
  split = subject.splits[-1]
  texts = passages(subject.read(split), 1, _SHOWN, _SHOWN)
  documents = [document for document, _ in texts]
  rows = predictions(subject.experiment, subject.params, documents, _LIKELY)
  part = coloured_text(subject, rows, subject.symbols)
  return [section("Predictions in gaps", "gaps", split=split, reading=part)]


def labels(subject: Subject) -> list[Section]:
  """The sections on tags, confusion and, if tags mark any, spans."""
  labels = subject.experiment.labels
  if not subject.facts or labels is None:
    return []
  split, mesh, parts = subject.splits[-1], sharding.mesh(), []
  if not subject.experiment.by_text:
    rows = predictions(subject.experiment, subject.params, split, _LIKELY)
    part = coloured_text(subject, rows, labels)
    parts.append(section("Tagged text", "tagged", reading=part))
  batches = subject.experiment.batches(split, None)
  params = jax.device_put(subject.params, sharding.replicated(mesh))
  counted = examiner(subject.experiment, mesh)(params, batches)
  assert counted is not None and counted[1] is not None, "there are labels"
  table = confusion.confusion_table(labels, counted[1])
  words = "Counts of predicted labels by true label"
  chart = charts.chart(confusion.draw(table), words, words)
  parts.append(section("Confusion of labels", "confusion", chart=chart))
  counts_3K = counted[1].span_counts(labels)
  if counts_3K is not None:
    rows = spans.span_table(labels, counts_3K)
    parts.append(section("Spans", "spans", rows=rows))
  return [{"split": split, **part} for part in parts]


def mistakes(subject: Subject) -> list[Section]:
  """The texts or symbols with the least likely true labels, by true label.

  Without labels, the texts with the furthest numbers.
  """
  if not subject.facts:
    return []
  split, unit = subject.splits[-1], subject.config.data.unit
  rows = predictions(subject.experiment, subject.params, split, 1)
  some = [*islice(rows, _READ)]
  if subject.experiment.names is None:
    off_NC = np.abs([np.ravel(p.numbers - p.targets) for p in some])
    # Of several numbers, all count.
    far_N = (off_NC / np.maximum(off_NC.mean(0), 1e-30)).sum(1)
    wrong = [(far, "", p, 0) for far, p in zip(far_N, some, strict=True)]
  else:
    wrong = [
      (p.surprisal[n], p.truth[n], p, n)
      for p in some
      for n in np.flatnonzero(np.array(p.best) != p.truth).tolist()
    ]
  by_label: dict[str, list[tuple[str, ...]]] = {}
  for _, label, p, n in sorted(wrong, key=lambda mistake: -mistake[0]):
    answer = number_text(p.numbers)
    if p.likely:
      answer = f"{p.likely[n][0]}, {p.probabilities[n, 0]:.0%}"
    row = _begin(p.source(unit, n)), p.truth[n], answer
    if not subject.experiment.by_text:
      t = p.positions[n]
      row += (p.text(unit, max(t - _AROUND, 0), t + _AROUND + 1),)
    by_label.setdefault(label, []).append(row)
  each = _MISTAKES // (len(by_label) or 1) or 1
  worst = [row for rows in by_label.values() for row in rows[:each]]
  facts = {"split": split, "read": counted(len(some), "text"), "each": each}
  return [section("Mistakes", "mistakes", rows=worst[:_MISTAKES], **facts)]


def _begin(text: str) -> str:
  return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


def _interpretable(
  subject: Subject,
  read: Callable[[Params, np.ndarray], TextReading],
  first: ReadSplit,
  second: ReadSplit,
) -> list[Section]:
  """The units whose states explain a simple property of characters.

  Args:
    subject: the run.
    read: reads texts with given parameters.
    first: the texts on which the units are chosen.
    second: the texts on which the units are scored, and which are shown.
  """
  if subject.symbols.unit not in ("char", "byte"):
    return []
  key = jax.random.key(subject.config.seed)
  fresh = sharding.jit(subject.experiment.init)(key)
  texts, values = [], {}
  for source in (first, second):
    ids_BT = source.ids[:, :-1]
    some_BT = ids_BT > END
    values = _properties(source.texts, ids_BT)
    texts.append(
      neurons.Text(
        {name: values_BT[some_BT] for name, values_BT in values.items()},
        source.reading.states[some_BT],
        read(fresh, source.ids).states[some_BT],
      )
    )
  findings = neurons.best_units(*texts)
  units = []
  for finding in findings:
    layer, unit = divmod(finding.state, subject.config.model.hidden_size)
    property_BT = values[finding.name]
    spans = _passage(subject.symbols, second, finding.state, property_BT)
    name = f"layer {layer + 1}, unit {unit}"
    if finding.share >= _CLEAR:
      units.append({"finding": finding, "name": name, "spans": spans})
  if not findings:
    return []
  return [
    section(
      "Interpretable units",
      "units",
      count=second.reading.states.shape[-1],
      splits=(first.split, second.split),
      units=units,
      least=f"{_CLEAR:.0%}",
      weak=[finding.name for finding in findings if finding.share < _CLEAR],
    )
  ]


def _properties(texts: list[Passage], ids_BT: np.ndarray):
  """The properties of texts at each of their symbols, [B, T] each."""
  by_name: dict[str, np.ndarray] = {}
  for b, (document, before) in enumerate(texts):
    text = "".join(before) + "".join(document.symbols)
    first = int(ids_BT[b, 0] == BEGIN)
    for name, values_T in neurons.properties(text).items():
      part_T = values_T[len(before) :][: ids_BT.shape[1] - first]
      values_BT = by_name.setdefault(name, np.zeros(ids_BT.shape))
      values_BT[b, first : first + len(part_T)] = part_T
  return by_name


def _passage(
  symbols: Vocabulary, source: ReadSplit, state: int, values_BT: np.ndarray
) -> list[tuple[str, str]]:
  """The passage where a property varies most, coloured by a state."""
  ids_BT, state_BT = source.ids[:, :-1], source.reading.states[..., state]
  low, high = np.quantile(state_BT[ids_BT > END], [0.02, 0.98])
  wide = max((high - low) / 2, 1e-6)
  b = values_BT[:, :_PASSAGE].var(1).argmax()
  return page.tinted(
    (shown(symbols, i), (state - (low + high) / 2) / wide)
    for i, state in zip(ids_BT[b, :_PASSAGE], state_BT[b], strict=False)
    if i > BEGIN
  )
