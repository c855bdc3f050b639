"""thresholds.json: the scores above which sessions and events are flagged."""

import json
import math
from pathlib import Path
from typing import Any

from seqrnn.detection import records
from seqrnn.detection.calibration import COMBINED, NormalScores
from seqrnn.detection.detector import Detector
from seqrnn.errors import UserError
from seqrnn.runtime import files


def content(normal: NormalScores, detector: Detector) -> dict[str, Any]:
  """The content of thresholds.json."""
  settings = detector.config.detect
  sessions, events = normal.scores[COMBINED], normal.events
  return {
    "head": settings.head,
    "step": detector.step,
    "rule": settings.rule,
    "sessions": {
      "rate": settings.rate,
      "calibration": sessions.n,
      "resolution": sessions.resolution,
      "rate_95": sessions.interval(settings.rate),
      "above": {
        name: calibration.threshold(settings.rate)
        for name, calibration in normal.scores.items()
      },
    },
    "events": {
      "rate": settings.event_rate,
      "calibration": events.n,
      "resolution": events.resolution,
      "above": events.threshold(settings.event_rate),
      "unknown": settings.unknown,
      "flag_unknown": settings.flag_unknown,
      "top_k": settings.top_k,
    },
  }


def write_json(path: Path, record: dict[str, Any]):
  """Writes JSON; infinite numbers, which JSON does not have, become strings."""

  def finite(value):
    if isinstance(value, dict):
      return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
      return str(value)
    return value

  with files.atomic_write(path) as file:
    file.write(json.dumps(finite(record), indent=2, allow_nan=False) + "\n")


def read(path: Path, step: int) -> dict[str, Any]:
  """Reads thresholds.json for `--follow`.

  Args:
    path: of the file.
    step: of the checkpoint that will score events.

  Raises:
    UserError: the file is missing or damaged, or is of another checkpoint, or
      of a head that needs later events.
  """
  if not path.exists():
    raise UserError(
      f"--follow: {path}: no such file; --mode=detect without --follow writes"
      " it"
    )
  record = records.read_object(path)
  with records.reading(path):
    events, head, trained = record["events"], record["head"], record["step"]
    numbers = [float(events[name]) for name in ("above", "unknown", "top_k")]
    if "rule" not in record or math.isnan(sum(numbers)):
      raise ValueError("a field is missing")
  if head != "forward":
    raise UserError(
      f"{path}: config.detect.head={head!r}: must be forward, because --follow"
      " cannot read later events; run --mode=detect with forward"
    )
  if trained != step:
    raise UserError(
      f"{path}: is of step {trained}, but the checkpoint of step {step}; run"
      " --mode=detect again"
    )
  return record
