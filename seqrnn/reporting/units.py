"""Sections of a report on the units of a language model and their gates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, Vocabulary
from seqrnn.experiment import Decoder, Params
from seqrnn.reporting import neurons, page
from seqrnn.reporting.neurons import Finding, Reading
from seqrnn.reporting.page import Section, section
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
) -> list[Section]:
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
  findings = neurons.find(*texts)
  if not findings:
    return []
  return [
    section(
      "Interpretable units",
      "units",
      count=second.reading.states.shape[-1],
      splits=(first.split, second.split),
      units=[
        _unit(subject, second, values[finding.name], finding)
        for finding in findings
        if finding.clear
      ],
      least=f"{neurons.CLEAR:.0%}",
      weak=[finding.name for finding in findings if not finding.clear],
    )
  ]


def _unit(
  subject: Subject, source: Source, values_BT: np.ndarray, finding: Finding
) -> dict[str, Any]:
  """The scores of a unit, and a text coloured by its state."""
  layer, unit = divmod(finding.state, subject.config.model.hidden_size)
  states_BT = source.reading.states[..., finding.state]
  return {
    "property": finding.name,
    "name": f"layer {layer + 1}, unit {unit}",
    "share": finding.share,
    "untrained": finding.untrained,
    "spans": _passage(subject, source.ids[:, :-1], states_BT, values_BT),
  }


def _properties(
  symbols: Vocabulary, texts: list[Passage], ids_BT: np.ndarray
) -> dict[str, np.ndarray]:
  """The properties of texts at each of their symbols, [B, T] each."""
  if symbols.unit not in ("char", "byte"):
    # Without the logarithm, a few long texts would dominate.
    place_T = np.log(np.arange(ids_BT.shape[1]) + 1.0)
    return {"position, its logarithm": np.tile(place_T, (len(ids_BT), 1))}
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
  subject: Subject,
  ids_BT: np.ndarray,
  state_BT: np.ndarray,
  value_BT: np.ndarray,
) -> list[tuple[str, str]]:
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
    (names[i], (state - middle) / wide)
    for i, state in zip(ids_BT[b, part], state_BT[b, part], strict=True)
    if i > BEGIN
  )


def gates(subject: Subject, decoder: Decoder, source: Source) -> list[Section]:
  """The saturation of gates."""
  saturation = neurons.saturation(
    subject.config, subject.params, decoder, source.ids
  )
  return [section("Gates", "gates", gates=saturation)] if saturation else []
