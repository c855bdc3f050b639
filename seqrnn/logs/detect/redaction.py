"""Redaction: secrets in the text of a log are masked where it is shown.

Shown are the names of sessions, the templates of lines, and lines that have no
template, in tables, alarms, reports and on the terminal. What detection works
with is not masked: the vocabulary, the calibration and the state of a follower
in the workdir have the log's own text.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from seqrnn.data.logs.secrets import Redaction, redaction
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import Vocabulary


def masked_vocabulary(names: Vocabulary, pattern: str) -> Vocabulary:
  """The vocabulary, whose templates of a log are shown with masks."""
  masks = redaction(pattern)
  if masks is None or names.unit != "log":
    return names
  return dataclasses.replace(names, mask=masks.text)


def masked_sessions(sessions: Sessions, pattern: str) -> Sessions:
  """Sessions to show: names and events as they were read have masks."""
  masks = redaction(pattern)
  if masks is None:
    return sessions
  as_read = sessions.as_read
  if as_read is not None:
    symbols: Any = _Masked(as_read.symbols, masks)
    as_read = Texts(symbols, as_read.ids)
  names = [masks.name(name) for name in sessions.names]
  return sessions._replace(names=names, as_read=as_read)


class _Masked(Sequence):
  """Texts that are masked when they are read, as few of many are."""

  def __init__(self, texts: Sequence[str], masks: Redaction):
    self._texts, self._masks = texts, masks

  def __len__(self) -> int:
    return len(self._texts)

  def __getitem__(self, index: Any) -> Any:
    text: Any = self._texts[index]
    return self._masks.text(text)
