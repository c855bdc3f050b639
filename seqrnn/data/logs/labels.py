"""Labels of sessions and events: normal, anomalous or none."""

import math
import sys
from collections.abc import Sequence

import numpy as np

from seqrnn.config.read import Config
from seqrnn.errors import UserError

UNLABELLED = -1  # The other kinds are 0, normal, and 1, anomalous.
_NONE = ("", "nan", "null", "none", "na", "n/a")  # How tables write no label.
_SHOWN = 20  # Labels in a warning.
_KINDS = {UNLABELLED: "no label", 0: "normal", 1: "anomalous"}


def kinds_of(
  labels: Sequence[str], counts: np.ndarray, settings: Config
) -> np.ndarray:
  """The kind of each label: int8 of UNLABELLED, 0 and 1.

  Warns on stderr if a label is in neither of `detect.normal_labels` and
  `detect.anomalous_labels`.

  Args:
    labels: as they were written; case and outer blanks are ignored, and equal
      numbers are the same label.
    counts: the frequency of each label.
    settings: the fields of `config.detect`.

  Raises:
    UserError: a label is in both fields.
  """
  normal, anomalous = (
    {_key(name) for name in settings[f"{kind}_labels"].split(",")}
    for kind in ("normal", "anomalous")
  )
  both = sorted(map(str, (normal & anomalous) - {""}))
  if both:
    raise UserError(
      f"config.detect.normal_labels={settings.normal_labels!r},"
      f" config.detect.anomalous_labels={settings.anomalous_labels!r}: both"
      f" have {both[0]!r}; a label is one of the two"
    )
  keys = [_key(label) for label in labels]
  found = np.array(
    [UNLABELLED if key == "" else int(key not in normal) for key in keys],
    np.int8,
  )
  if anomalous == {""}:  # All labels that are not normal.
    return found
  other = [
    label
    for label, key, count in zip(labels, keys, counts, strict=True)
    if count and key not in normal | anomalous | {""}
  ]
  if other:
    order = sorted(range(len(labels)), key=lambda n: -counts[n])
    shown = ", ".join(
      f"{labels[n]!r} {_KINDS[int(found[n])]} ({int(counts[n]):,})"
      for n in order[:_SHOWN]
      if counts[n]
    )
    print(
      f"labels: {shown}{', ...' if len(order) > _SHOWN else ''}; neither in"
      " detect.normal_labels nor in detect.anomalous_labels, and taken as"
      f" anomalous: {', '.join(map(repr, other[:_SHOWN]))}"
      f"{', ...' if len(other) > _SHOWN else ''}",
      file=sys.stderr,
    )
  return found


def _key(label: str) -> str | float:
  """A label for comparison: a number, or a text without case."""
  text = label.strip().casefold()
  if text in _NONE:
    return ""
  try:
    number = float(text)
  except ValueError:
    return text
  return "" if math.isnan(number) else number
