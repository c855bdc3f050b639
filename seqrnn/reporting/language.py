"""Sections of a report on what a model of symbols learned."""

import math
from collections.abc import Callable

import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, PAD
from seqrnn.experiment import Decoder, Params
from seqrnn.inference.predictions import predictions
from seqrnn.inference.primes import prime_ids
from seqrnn.inference.sampler import generator
from seqrnn.reporting import charts, neurons, page, units
from seqrnn.reporting.neurons import Reading
from seqrnn.reporting.novelty import novelty
from seqrnn.reporting.page import Element, Mark, element, section
from seqrnn.reporting.subject import (
  Subject,
  encoded,
  named,
  passages,
  prediction_marks,
  shown,
  unit,
  writer,
)
from seqrnn.reporting.units import Source

_TEMPERATURES = (0.3, 0.6, 0.9, 1.2)
_DRAWN = 480  # Length of a sample.
_LIKELY = 5  # Alternatives to a symbol.
_ROWS, _LENGTH = 32, 1500  # Passages of a text, and symbols of each.
_SHOWN = 1200  # Symbols of a long passage, and of the gap model's text.
_TARGETS, _REACH = 256, 128  # Predicted symbols; the longest context.
_GRAM = 12  # The longest n-gram whose share is drawn.
_TRAINING = 20_000_000  # Symbols of the training split that are searched.


def writing(run: Subject) -> list[Element]:
  """The sections on samples, surprisal, units, memory and copies."""
  subject = writer(run)
  if subject is None:
    return []
  drawn = draw(subject)
  made = [samples(subject, drawn)]
  if not subject.splits:
    return made
  decoder = subject.experiment.decoder
  assert decoder is not None, "checked by the caller"
  read = neurons.reader(decoder, _LIKELY)
  sources = _sources(subject, read)
  made.append(surprises(subject, sources[-1]))
  if sources[-1].reading.states.shape[-1]:
    if len(sources) > 1:
      made += units.interpretable(subject, read, *sources)
    made += units.gates(subject, decoder, sources[-1])
  made += memory(subject, decoder, sources[-1])
  if "train" in subject.facts and not subject.other:
    made.append(copies(subject, drawn, sources[-1]))
  return made


def _sources(
  subject: Subject, read: Callable[[Params, np.ndarray], Reading]
) -> list[Source]:
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
    sources.append(Source(split, texts[split], ids_BS, reading))
  return sources


def draw(subject: Subject) -> list[tuple[float, np.ndarray]]:
  """Samples at several temperatures: ids without the prime."""
  config, symbols = subject.config, subject.symbols
  settings, decoder = config.sample, subject.experiment.decoder
  assert decoder is not None, "checked by the caller"
  generate = generator(decoder, length=_DRAWN)
  prime_BP, _ = prime_ids(
    symbols, settings.prime, config.data, 1, settings.seed
  )
  several = len(settings.temperature) > 1
  temperatures = settings.temperature if several else _TEMPERATURES
  drawn = []
  for temperature in temperatures:
    chunks = generate(subject.params, prime_BP, settings.seed, temperature)
    ids_T = np.concatenate(list(chunks), axis=1)[0]
    drawn.append((temperature, ids_T[ids_T > END]))
  return drawn


def samples(subject: Subject, drawn: list[tuple[float, np.ndarray]]) -> Element:
  """Samples at several temperatures."""
  prime = subject.config.sample.prime
  return section(
    "Samples",
    element(
      "p",
      "At a low temperature the model draws mostly the most likely symbols; at"
      " a high temperature it also draws less likely symbols.",
      f" All samples continue {prime!r}." if prime else "",
    ),
    element(
      "div",
      [
        element(
          "div",
          element("h3", f"temperature {temperature:g}"),
          element("pre", prime, subject.symbols.text(ids_T) or "(nothing)"),
          class_="card",
        )
        for temperature, ids_T in drawn
      ],
      class_="four samples",
    ),
  )


def typical(source: Source) -> np.ndarray:
  """Orders passages: long ones first, then by distance to the mean loss."""
  some_BT = source.ids[:, 1:] > PAD
  size_B = some_BT.sum(1)
  nll_BT = source.reading.surprisal
  mean_B = (nll_BT * some_BT).sum(1) / np.maximum(size_B, 1)
  away_B = abs(mean_B - nll_BT[some_BT].mean())
  usual = min(_SHOWN, np.median(size_B[size_B > 0]))
  return np.lexsort((away_B, size_B < usual))


def surprises(subject: Subject, source: Source) -> Element:
  """A passage of typical loss, coloured by the surprisal of its symbols."""
  symbols, split = subject.symbols, source.split
  marks: list[Mark] = []
  for b in typical(source):
    ids_S, nll_T, best_TK, share_TK = (
      x[b] for x in (source.ids, *source.reading[:3])
    )
    for t, i in enumerate(ids_S):
      if i <= BEGIN:
        continue
      mark = Mark(shown(symbols, i), named(symbols, i))
      if t:
        names = [named(symbols, best) for best in best_TK[t - 1]]
        likely = list(zip(names, share_TK[t - 1], strict=True))
        mark = mark._replace(bits=nll_T[t - 1] / math.log(2), likely=likely)
      marks.append(mark)
    if page.full(marks):
      break
    if marks and not marks[-1].text.endswith("\n"):
      marks.append(Mark("\n", "the end of a passage"))
  return section(
    "Surprisal of a text",
    element(
      "p",
      f"The passage of the {split} split, {subject.learned(split)}, whose"
      " loss is nearest to the mean. A stronger colour is a higher surprisal of"
      " a symbol, given the symbols before it.",
    ),
    page.marked(
      marks,
      math.log2(len(symbols)),
      f"A text of the {split} split, each symbol coloured by surprisal",
    ),
  )


def memory(subject: Subject, decoder: Decoder, source: Source) -> list[Element]:
  """The loss by the length of the context that the model reads."""
  word = unit(subject.config)
  # The same symbols are predicted from longer and longer contexts.
  places = np.argwhere(source.ids[:, 1:] > PAD)
  reach = int(min(_REACH, np.median(places[:, 1]) + 1))
  far = places[places[:, 1] + 1 >= reach]
  rng = np.random.default_rng(0)
  chosen = rng.permutation(far)[:_TARGETS]
  counts = [2**n for n in range(reach.bit_length())]
  if len(counts) < 3:
    return []
  most = counts[-1]
  rows = [
    source.ids[b, t + 1 - most : t + 2] for b, t in chosen if t + 1 >= most
  ]
  ids_BS = np.tile(np.stack(rows), (len(counts), 1, 1))
  for n, ids in zip(counts, ids_BS, strict=True):
    ids[:, : most - n] = PAD
  nll_B = neurons.last_surprisal(
    decoder, subject.params, ids_BS.reshape(-1, most + 1)
  )
  bits = nll_B.reshape(len(counts), -1).mean(1) / math.log(2)
  enough = next(
    n for n, b in zip(counts, bits, strict=True) if b < 1.02 * bits[-1]
  )
  mark = (float(subject.trained.data.window), "training window")
  curve = charts.lines(
    "Loss by context",
    {"loss": (counts, bits.tolist())},
    f"{word}s of context",
    f"bits per {word}, {source.split} split",
    mark=mark,
  )
  text = element(
    "p",
    f"The model predicts {len(rows):,} {word}s of the {source.split} split,"
    f" each from an empty state and the last {', '.join(map(str, counts))}"
    f" {word}s before it. The loss is {bits[0]:.2f} bits per {word} with a"
    f" context of 1 and {bits[-1]:.2f} with a context of {most}. With a context"
    f" of {enough},"
    " the loss is within 2 % of the latter. At the begin of a text the loss is"
    " high for the same reason: nothing is known yet of what follows.",
  )
  return [
    section("Loss by context", element("div", text, curve, class_="beside"))
  ]


def _line(text: str) -> str:
  """A passage in one line, with visible line ends and double blanks."""
  return text.replace("\n", "\u21b5").replace("  ", "\u00b7\u00b7")


def copies(
  subject: Subject, drawn: list[tuple[float, np.ndarray]], source: Source
) -> Element:
  """New n-grams of the samples, and passages copied from training."""
  word, split = unit(subject.config), source.split
  known_S = _training_ids(subject)
  texts = {f"temperature {t:g}": ids_T for t, ids_T in drawn if len(ids_T)}
  measure = ""
  if split != "train":
    ids_S = source.ids[typical(source)[0]]
    texts[f"{split} split"] = ids_S[ids_S > END][:_DRAWN]
    measure = (
      f" A text of the {split} split of the same length is the baseline:"
      " texts in the same language share n-grams without copying."
    )
  found = {
    name: novelty(ids_T, known_S, _GRAM) for name, ids_T in texts.items()
  }
  rows = []
  for name, each in found.items():
    part = texts[name][each.start : each.start + each.length]
    passage = element("code", _line(subject.symbols.text(part)))
    rows.append([name, f"{each.length} {word}s", passage])
  part = "all" if len(known_S) < _TRAINING else "the first"
  return section(
    "Passages copied from training",
    element(
      "div",
      element(
        "div",
        element(
          "p",
          f"Each sample is compared with {part} {len(known_S):,} {word}s of the"
          f" training split.{measure}",
        ),
        page.table(
          ["text", "longest copy", "the passage"],
          rows,
          "The longest passage of each text that is in the training split",
          "words",
        ),
      ),
      charts.lines(
        "New n-grams",
        {
          name: (range(1, len(each.new) + 1), each.new)
          for name, each in found.items()
        },
        "n",
        "share of n-grams that are not in the training split",
        zero=True,
      ),
      class_="beside",
    ),
  )


def _training_ids(subject: Subject) -> np.ndarray:
  """The ids of the training split, or of its beginning."""
  pieces = subject.read("train")
  table = subject.symbols.encode(pieces.corpus.symbols)
  chunks, total = [], 0
  for chunk in pieces.chunks():
    chunks.append(table[chunk[: _TRAINING - total]])
    total += len(chunks[-1])
    if total >= _TRAINING:
      break
  return np.concatenate(chunks)


def gaps(subject: Subject) -> list[Element]:
  """A text coloured by surprisal, with the predictions of a gap model."""
  if not subject.facts:
    return []
  symbols, split = subject.symbols, subject.splits[-1]
  texts = passages(subject.read(split), 1, _SHOWN, _SHOWN)
  marks: list[Mark] = []
  worst: list[tuple[float, str, str, str, str]] = []
  documents = [document for document, _ in texts]
  for p in predictions(subject.experiment, subject.params, documents, _LIKELY):
    own = prediction_marks(symbols, p, lambda i: named(symbols, i))
    for t, mark in enumerate(own):
      if mark.bits is not None:
        left = "".join(m.text for m in own[max(t - 24, 0) : t])
        right = "".join(m.text for m in own[t + 1 : t + 25])
        best, _ = mark.likely[0]
        worst.append((mark.bits, left, mark.text, right, best))
    marks += own
  worst.sort(key=lambda item: -item[0])
  rows = [
    [
      f"{bits:.1f}",
      element(
        "code",
        left.replace("\n", " "),
        element("mark", symbol.replace("\n", "")),
        right.replace("\n", " "),
      ),
      element("code", best),
    ]
    for bits, left, symbol, right, best in worst[:10]
  ]
  made = section(
    "Predictions in gaps",
    element(
      "p",
      f"A text of the {split} split, {subject.learned(split)}. A stronger"
      " colour is a higher surprisal of a symbol, given the symbols on both"
      " sides.",
    ),
    page.marked(
      marks,
      math.log2(len(symbols)),
      f"A text of the {split} split, each symbol coloured by surprisal",
    ),
    element("h3", "Symbols with the highest surprisal"),
    page.table(
      ["bits", "in context", "predicted"],
      rows,
      "Symbols with the highest surprisal",
      "words",
    ),
  )
  return [made]
