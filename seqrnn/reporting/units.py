"""Sections of a report on the units of a language model and their gates."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, Vocabulary
from seqrnn.experiment import Decoder, Params
from seqrnn.reporting import neurons, page
from seqrnn.reporting.neurons import Finding, Reading
from seqrnn.reporting.page import Element, element, section
from seqrnn.reporting.subject import Passage, Subject, shown
from seqrnn.runtime import sharding

_PASSAGE = 560  # Symbols of a text coloured by a unit.


class Source(NamedTuple):
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
  reading: Reading


def interpretable(
  subject: Subject,
  read: Callable[[Params, np.ndarray], Reading],
  first: Source,
  second: Source,
) -> list[Element]:
  """The units whose states explain a simple property of the text.

  Args:
    subject: the run.
    read: reads texts with given parameters.
    first: the texts on which the units are chosen.
    second: the texts on which the units are scored, and which are shown.
  """
  key = jax.random.key(subject.config.seed)
  fresh = sharding.jit(subject.experiment.init)(key)
  texts = []
  for source in (first, second):
    ids_BT = source.ids[:, :-1]
    some_BT = ids_BT > END
    values = _properties(subject.symbols, source.texts, ids_BT)
    texts.append(
      neurons.Text(
        {name: values_BT[some_BT] for name, values_BT in values.items()},
        source.reading.states[some_BT],
        read(fresh, source.ids).states[some_BT],
      )
    )
  found = neurons.find(*texts)
  if not found:
    return []
  shows = [
    _unit(subject, second, values[each.name], each)
    for each in found
    if each.clear
  ]
  weak = [each.name for each in found if not each.clear]
  return [
    section(
      "Interpretable units",
      _method(first, second, weak),
      element("div", shows, class_="pairs"),
      element(
        "p",
        "Blue is a low state, orange a high state. Karpathy, Johnson & Li"
        " (2015) found such units by eye; they call them cells.",
        class_="muted",
      ),
    )
  ]


def _method(first: Source, second: Source, weak: list[str]) -> Element:
  """How units were chosen, and the properties that no unit explains."""
  words = (
    "For each simple property of a text, the page shows the unit, out of"
    f" {second.reading.states.shape[-1]}, whose state explains the property"
    f" best. The unit was chosen on the {first.split} split and scored on the"
    f" {second.split} split. The score is the share of the property's variance"
    " that a linear function of the state explains. The second bar is the best"
    " unit of the same network before training."
  )
  if weak:
    words += f" No unit explains {neurons.CLEAR:.0%} of: {', '.join(weak)}."
  return element("p", words)


def _unit(
  subject: Subject, source: Source, values_BT: np.ndarray, finding: Finding
) -> Element:
  """The scores of a unit, and a text coloured by its state."""
  layer, unit = divmod(finding.state, subject.config.model.hidden_size)
  name = f"layer {layer + 1}, unit {unit}"
  return element(
    "div",
    element("h3", f"{finding.name.capitalize()}: {name}"),
    page.bars(
      [
        ("this unit", finding.share, ""),
        ("untrained", finding.untrained, "base"),
      ]
    ),
    _tinted_passage(
      subject,
      source.ids[:, :-1],
      source.reading.states[..., finding.state],
      values_BT,
      f"A text coloured by the state of {name}; the property is {finding.name}",
    ),
    class_="cell",
  )


def _properties(
  symbols: Vocabulary, texts: list[Passage], ids_BT: np.ndarray
) -> dict[str, np.ndarray]:
  """The properties of texts at each of their symbols, [B, T] each."""
  if symbols.unit not in ("char", "byte"):
    # Without the logarithm, a few long texts would dominate.
    place_T = np.log(np.arange(ids_BT.shape[1]) + 1.0)
    return {"position, its logarithm": np.tile(place_T, (len(ids_BT), 1))}
  found: dict[str, np.ndarray] = {}
  for b, (document, before) in enumerate(texts):
    text = "".join(before) + "".join(document.symbols)
    first = int(ids_BT[b, 0] == BEGIN)
    for name, values_T in neurons.properties(text).items():
      own_T = values_T[len(before) :][: ids_BT.shape[1] - first]
      values_BT = found.setdefault(name, np.zeros(ids_BT.shape))
      values_BT[b, first : first + len(own_T)] = own_T
  return found


def _tinted_passage(
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
      part = np.s_[b, start : start + _PASSAGE]
      values = value_BT[part][some_BT[part]]
      if not len(values) or (len(values) < _PASSAGE - 2 and start):
        break
      spread = values.var() / (1 + values.max())
      if spread > best:
        best, chosen = float(spread), (b, start)
  b, start = chosen
  part = slice(start, start + _PASSAGE)
  return page.tinted(
    [
      (names[i], (state - middle) / wide)
      for i, state in zip(ids_BT[b, part], state_BT[b, part], strict=True)
      if i > BEGIN
    ],
    words,
  )


def gates(subject: Subject, decoder: Decoder, source: Source) -> list[Element]:
  """The saturation of gates."""
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
        "span", f"{each.low:.0%} closed, {each.high:.0%} open", class_="value"
      ),
    ]
    for each in found
  ]
  return [
    section(
      "Gates",
      element(
        "p",
        "Share of units and symbols at which a gate is almost closed (below .1,"
        " at the left) or almost open (above .9, at the right). A unit whose"
        " forget gate stays open keeps its state.",
      ),
      element("div", rows, class_="rows"),
    )
  ]
