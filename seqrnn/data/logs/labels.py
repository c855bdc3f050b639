"""Labels of sessions and events: normal, anomalous or none."""

import math
import sys
from collections.abc import Sequence

import numpy as np

from seqrnn.config.read import Config

UNLABELLED = -1  # The other kinds are 0, normal, and 1, anomalous.
_NONE = ("", "nan", "null", "none", "na", "n/a")  # How tables write no label.
_SHOWN = 20  # Labels in a warning.
_ANOMALOUS = {1.0} | {
  *("true", "yes", "anomaly", "anomalous", "abnormal", "attack", "positive"),
  "malicious",
}
_KINDS = {UNLABELLED: "no label", 0: "normal", 1: "anomalous"}


def kinds_of(
  labels: Sequence[str], counts: np.ndarray, settings: Config
) -> np.ndarray:
  """The kind of each label: int8 of UNLABELLED, 0 and 1.

  Warns on stderr of a label that neither `detect.normal_labels` has nor is a
  usual name of an anomaly.

  Args:
    labels: as they were written; case and outer blanks are ignored, and equal
      numbers are the same label.
    counts: the frequency of each label.
    settings: the fields of `config.detect`.
  """
  normal = {_key(name) for name in settings.normal_labels.split(",")}
  keys = [_key(label) for label in labels]
  kinds = np.array(
    [UNLABELLED if key == "" else int(key not in normal) for key in keys],
    np.int8,
  )
  other = [
    label
    for label, key, count in zip(labels, keys, counts, strict=True)
    if count and key not in normal | _ANOMALOUS | {""}
  ]
  if other:
    order = sorted(range(len(labels)), key=lambda n: -counts[n])
    shown = ", ".join(
      f"{labels[n]!r} {_KINDS[int(kinds[n])]} ({int(counts[n]):,})"
      for n in order[:_SHOWN]
      if counts[n]
    )
    print(
      f"labels: {shown}{', ...' if len(order) > _SHOWN else ''}; not in"
      " detect.normal_labels, so anomalous:"
      f" {', '.join(map(repr, other[:_SHOWN]))}"
      f"{', ...' if len(other) > _SHOWN else ''}",
      file=sys.stderr,
    )
  return kinds


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
