"""Sections of a report on the units of a language model and their gates."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, Vocabulary
from seqrnn.experiment import Decoder, Params
from seqrnn.reporting import neurons, page
from seqrnn.reporting.neurons import Reading
from seqrnn.reporting.page import Section, section
from seqrnn.reporting.subject import Passage, Subject, shown
from seqrnn.runtime import sharding

_PASSAGE = 560  # Symbols of a text coloured by a unit.
_CLEAR = 0.1  # The least share of its variance that a shown unit explains.


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
  symbols: Vocabulary, source: Source, state: int, values_BT: np.ndarray
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


def gates(subject: Subject, decoder: Decoder, source: Source) -> list[Section]:
  """The saturation of gates."""
  saturation = neurons.saturation(
    subject.config, subject.params, decoder, source.ids
  )
  return [section("Gates", "gates", gates=saturation)] if saturation else []
