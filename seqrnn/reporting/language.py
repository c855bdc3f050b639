"""Sections of a report on what a model of symbols has learned."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, PAD, Vocabulary
from seqrnn.experiment import Decoder, Params
from seqrnn.inference.predictions import predictions
from seqrnn.inference.sampler import generator, prime_ids
from seqrnn.reporting import charts, neurons, page
from seqrnn.reporting.neurons import Reading
from seqrnn.reporting.novelty import novelty
from seqrnn.reporting.page import Element, Mark, element, section
from seqrnn.reporting.subject import (
  Passage,
  Subject,
  a,
  encoded,
  named,
  passages,
  shown,
  unit,
)

_TEMPERATURES = (0.3, 0.6, 0.9, 1.2)
_DRAWN = 480  # Symbols of a sample.
_LIKELY = 5  # Alternatives to a symbol.
_ROWS, _LENGTH = 32, 1500  # Passages of a text, and symbols of each.
_SHOWN = 1200  # Symbols of a passage that is long, and of the gap model's.
_CELL = 560  # Symbols of a text coloured by a cell.
_TARGETS, _REACH = 256, 128  # Symbols that memory is measured on; how far.
_GRAM = 12  # The longest n-gram whose share is drawn.
_TRAINING = 20_000_000  # Symbols that copies are looked for in.


class Source(NamedTuple):
  """Passages of a split, and what the model makes of them.

  Attributes:
    split: its name.
    texts: the passages.
    ids: of their symbols [B, S].
    reading: of these; position t has read symbol t.
  """

  split: str
  texts: list[Passage]
  ids: np.ndarray
  reading: Reading


def sections(subject: Subject) -> list[Element]:
  """Samples, surprises, cells, memory, copies."""
  drawn = draw(subject)
  made = [samples(subject, drawn)]
  if not subject.splits:
    return made
  decoder = subject.experiment.decoder
  assert decoder is not None, "the caller has asked"
  read = neurons.reader(decoder, _LIKELY)
  sources = _sources(subject, read)
  made.append(surprises(subject, sources[-1]))
  if sources[-1].reading.states.shape[-1]:
    made += cells(subject, read, *sources) if len(sources) > 1 else []
    made += gates(subject, decoder, sources[-1])
  made += memory(subject, decoder, sources[-1])
  if "train" in subject.facts and not subject.other:
    made.append(copies(subject, drawn, sources[-1]))
  return made


def _sources(
  subject: Subject, read: Callable[[Params, np.ndarray], Reading]
) -> list[Source]:
  """The last two splits there are, of one shape: it compiles once."""
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
  """Samples at several temperatures, as ids without the prime."""
  config, symbols = subject.config, subject.symbols
  settings, decoder = config.sample, subject.experiment.decoder
  assert decoder is not None, "the caller has asked"
  generate = generator(decoder, length=_DRAWN)
  prime_BP, _ = prime_ids(
    symbols, settings.prime, config.data.boundaries, 1, settings.seed
  )
  several = len(settings.temperature) > 1
  temperatures = settings.temperature if several else _TEMPERATURES
  drawn = []
  for temperature in temperatures:
    chunks = generate(subject.params, prime_BP, temperature, settings.seed)
    ids_T = np.concatenate(list(chunks), axis=1)[0]
    drawn.append((temperature, ids_T[ids_T > END]))
  return drawn


def samples(subject: Subject, drawn: list[tuple[float, np.ndarray]]) -> Element:
  """What it writes."""
  prime = subject.config.sample.prime
  return section(
    "What it writes",
    element(
      "p",
      "A low temperature keeps to what is most likely; a high one dares more.",
      f" All go on from {prime!r}." if prime else "",
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
  """The passages by how near their loss is to the mean, long ones first."""
  some_BT = source.ids[:, 1:] > PAD
  size_B = some_BT.sum(1)
  nll_BT = source.reading.surprisal
  mean_B = (nll_BT * some_BT).sum(1) / np.maximum(size_B, 1)
  away_B = abs(mean_B - nll_BT[some_BT].mean())
  usual = min(_SHOWN, np.median(size_B[size_B > 0]))
  return np.lexsort((away_B, size_B < usual))


def surprises(subject: Subject, source: Source) -> Element:
  """A text, held out where there is one, coloured by how each surprises."""
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
    "What surprises it",
    element(
      "p",
      f"Of the {split} split, {subject.learned(split)}, the passage whose"
      " loss is nearest to the mean. The stronger the colour of a symbol, the"
      " less the model expected it from those before.",
    ),
    page.marked(
      marks,
      math.log2(len(symbols)),
      f"A text of the {split} split, each symbol coloured by its surprise",
    ),
  )


def cells(
  subject: Subject,
  read: Callable[[Params, np.ndarray], Reading],
  first: Source,
  second: Source,
) -> list[Element]:
  """The cells that keep track of something simple."""
  key = jax.random.key(subject.config.seed)
  fresh = jax.jit(subject.experiment.init)(key)
  read_by_both = []
  for source in (first, second):
    ids_BT = source.ids[:, :-1]
    some_BT = ids_BT > END
    values = _properties(subject.symbols, source.texts, ids_BT)
    read_by_both.append(
      neurons.Text(
        {name: values_BT[some_BT] for name, values_BT in values.items()},
        source.reading.states[some_BT],
        read(fresh, source.ids).states[some_BT],
      )
    )
  found = neurons.find(*read_by_both)
  if not found:
    return []
  H = subject.config.model.hidden_size
  ids_BT, states_BTN = second.ids[:, :-1], second.reading.states
  values = _properties(subject.symbols, second.texts, ids_BT)
  parts: list[Any] = [
    element(
      "p",
      "For each simple property of a text, the one cell of"
      f" {states_BTN.shape[-1]} whose state explains it best, chosen on the"
      f" {first.split} split, scored on the {second.split} split: the share of"
      " the property's variance that a straight line through the state gets"
      " right. Beside it, the best cell of such a network before it learned.",
    )
  ]
  for finding in found:
    layer, cell = divmod(finding.state, H)
    parts.append(
      element(
        "div",
        element(
          "h3", f"{finding.name.capitalize()}: layer {layer + 1}, cell {cell}"
        ),
        page.bars(
          [
            ("this cell", finding.share, ""),
            ("untrained", finding.untrained, "base"),
          ]
        ),
        _tinted_cell(
          subject,
          ids_BT,
          states_BTN[..., finding.state],
          values[finding.name],
          f"A text coloured by the state of layer {layer + 1}, cell {cell}, by"
          f" its property: {finding.name}",
        ),
        class_="cell",
      )
    )
  parts = [parts[0], element("div", parts[1:], class_="pairs")]
  parts.append(
    element(
      "p",
      "Blue is a low state, orange a high one. After Karpathy, Johnson & Li"
      " (2015), who looked for such cells by eye.",
      class_="muted",
    )
  )
  return [section("Cells with a meaning", parts)]


def _properties(
  symbols: Vocabulary, texts: list[Passage], ids_BT: np.ndarray
) -> dict[str, np.ndarray]:
  """Those of texts at each place of the ids that they were encoded as."""
  if symbols.unit not in ("char", "byte"):
    # There are few long ones, which would count for more than all others.
    place_T = np.log(np.arange(ids_BT.shape[1]) + 1.0)
    return {"position, its logarithm": np.tile(place_T, (len(ids_BT), 1))}
  found: dict[str, np.ndarray] = {}
  for b, (document, before) in enumerate(texts):
    whole = "".join(before) + "".join(document.symbols)
    first = int(ids_BT[b, 0] == BEGIN)
    for name, values_T in neurons.properties(whole).items():
      own_T = values_T[len(before) :][: ids_BT.shape[1] - first]
      values_BT = found.setdefault(name, np.zeros(ids_BT.shape))
      values_BT[b, first : first + len(own_T)] = own_T
  return found


def _tinted_cell(
  subject: Subject,
  ids_BT: np.ndarray,
  state_BT: np.ndarray,
  value_BT: np.ndarray,
  words: str,
) -> Element:
  """The passage where a property varies most, coloured by a state."""
  names = [shown(subject.symbols, i) for i in range(len(subject.symbols))]
  some_BT = ids_BT > END
  states = state_BT[some_BT]
  middle = (np.quantile(states, 0.02) + np.quantile(states, 0.98)) / 2
  wide = max(np.quantile(states, 0.98) - middle, 1e-6)
  best, chosen = -1.0, (0, 0)
  for b, ids_T in enumerate(ids_BT):
    breaks = [t + 1 for t, i in enumerate(ids_T) if names[i].endswith("\n")]
    for start in [0, *breaks]:
      part = np.s_[b, start : start + _CELL]
      values = value_BT[part][some_BT[part]]
      if not len(values) or (len(values) < _CELL - 2 and start):
        break
      spread = values.var() / (1 + values.max())
      if spread > best:
        best, chosen = float(spread), (b, start)
  b, start = chosen
  part = slice(start, start + _CELL)
  return page.tinted(
    [
      (names[i], (state - middle) / wide)
      for i, state in zip(ids_BT[b, part], state_BT[b, part], strict=True)
      if i > BEGIN
    ],
    words,
  )


def gates(subject: Subject, decoder: Decoder, source: Source) -> list[Element]:
  """How often gates are shut or open."""
  found = neurons.saturation(
    subject.config, subject.params, decoder, source.ids
  )
  if not found:
    return []
  rows = [
    [
      element("span", f"layer {each.layer}, {each.gate} gate"),
      element(
        "div",
        element("i", class_="low", style=f"width:{each.low:.1%}"),
        element(
          "i", class_="rest", style=f"width:{1 - each.low - each.high:.1%}"
        ),
        element("i", class_="high", style=f"width:{each.high:.1%}"),
        class_="track",
      ),
      element(
        "span", f"{each.low:.0%} shut, {each.high:.0%} open", class_="value"
      ),
    ]
    for each in found
  ]
  return [
    section(
      "Gates",
      element(
        "p",
        "How often a gate is all but shut (below .1, at the left) or all but"
        " open (above .9, at the right), over all units of a layer and all"
        " symbols. A forget gate that stays open is a cell that remembers.",
      ),
      element("div", rows, class_="rows"),
    )
  ]


def memory(subject: Subject, decoder: Decoder, source: Source) -> list[Element]:
  """How the loss falls with what the model may look back on."""
  word = unit(subject.config)
  # The same symbols are predicted, each from ever more of those before it.
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
  mark = (float(subject.trained.data.window), "window of training")
  curve = charts.lines(
    "Loss by context",
    {"loss": (counts, bits.tolist())},
    f"{word}s that it sees",
    f"bits {a(word)}, {source.split} split",
    log_x=True,
    mark=mark,
  )
  told = element(
    "p",
    f"{len(rows):,} {word}s of the {source.split} split, each predicted from"
    f" the last 1, 2, 4 ... {most} before it, from an empty state. With one it"
    f" takes {bits[0]:.2f} bits {a(word)}, with all {bits[-1]:.2f}; the last"
    f" {enough} are enough to come within 2 % of that.",
  )
  return [
    section(
      "Does it use its memory?", element("div", told, curve, class_="beside")
    )
  ]


def _line(text: str) -> str:
  """A passage in one line, where several blanks can be counted."""
  return text.replace("\n", "\u21b5").replace("  ", "\u00b7\u00b7")


def copies(
  subject: Subject, drawn: list[tuple[float, np.ndarray]], source: Source
) -> Element:
  """How much of the samples is new, and what was copied."""
  symbols, word = subject.symbols, unit(subject.config)
  pieces, split = subject.read("train"), source.split
  table, chunks, total = symbols.encode(pieces.corpus.symbols), [], 0
  for chunk in pieces.chunks():
    chunks.append(table[chunk[: _TRAINING - total]])
    total += len(chunks[-1])
    if total >= _TRAINING:
      break
  known_S = np.concatenate(chunks)
  texts = {f"temperature {t:g}": ids_T for t, ids_T in drawn if len(ids_T)}
  if split != "train":
    ids_S = source.ids[typical(source)[0]]
    texts[f"{split} split"] = ids_S[ids_S > END][:_DRAWN]
  found = {
    name: novelty(ids_T, known_S, _GRAM) for name, ids_T in texts.items()
  }
  rows = []
  for name, each in found.items():
    part = texts[name][each.start : each.start + each.length]
    rows.append(
      [
        name,
        f"{each.length} {word}s",
        element("code", _line(symbols.text(part))),
      ]
    )
  whole = len(known_S) < _TRAINING
  measure = ""
  if split != "train":
    measure = (
      f", and as a measure a text of the {split} split of the same length: who"
      " writes in the same language repeats n-grams without having copied"
    )
  return section(
    "Does it copy?",
    element(
      "div",
      element(
        "div",
        element(
          "p",
          f"Each sample beside {'all' if whole else 'the first'}"
          f" {len(known_S):,} {word}s of the training split{measure}.",
        ),
        page.table(
          ["text", "longest copy", "the passage"],
          rows,
          class_="words",
          aria_label="The longest passage of each text that training has too",
        ),
      ),
      charts.lines(
        "New n-grams",
        {
          name: (range(1, len(each.new) + 1), each.new)
          for name, each in found.items()
        },
        "n",
        "share that is not in the training split",
        zero=True,
      ),
      class_="beside",
    ),
  )


def expectations(subject: Subject) -> Element:
  """A text with what the gap model would have put in each place."""
  symbols, split = subject.symbols, subject.splits[-1]
  texts = passages(subject.read(split), 1, _SHOWN, _SHOWN)
  marks: list[Mark] = []
  worst: list[tuple[float, str, str, str, str]] = []
  documents = [document for document, _ in texts]
  for p in predictions(subject.experiment, subject.params, documents, _LIKELY):
    asked = dict(zip(p.positions.tolist(), range(len(p.targets)), strict=True))
    texts = [shown(symbols, i) if i > BEGIN else "" for i in p.inputs]
    for t, i in enumerate(p.inputs):
      if i in (BEGIN, PAD):
        continue
      mark = Mark(texts[t], named(symbols, i))
      if t in asked:
        n = asked[t]
        names = [named(symbols, best) for best in p.ids[n]]
        bits = float(p.surprisal[n]) / math.log(2)
        likely = list(zip(names, p.probabilities[n], strict=True))
        mark = mark._replace(bits=bits, likely=likely)
        left = "".join(texts[max(t - 24, 0) : t])
        right = "".join(texts[t + 1 : t + 25])
        worst.append((bits, left, mark.text, right, names[0]))
      marks.append(mark)
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
      element("code", rather),
    ]
    for bits, left, symbol, right, rather in worst[:10]
  ]
  return section(
    "What it expects in a gap",
    element(
      "p",
      f"A text of the {split} split, {subject.learned(split)}. The stronger"
      " the colour of a symbol, the less the model would have put it between"
      " those on both sides.",
    ),
    page.marked(
      marks,
      math.log2(len(symbols)),
      f"A text of the {split} split, each symbol coloured by its surprise",
    ),
    element("h3", "The most surprising ones"),
    page.table(
      ["bits", "in context", "it would have put"],
      rows,
      class_="words",
      aria_label="The most surprising symbols",
    ),
  )
