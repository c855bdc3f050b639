"""thresholds.json: the models of a detection, and the rates of its flags."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from seqrnn.detection import records
from seqrnn.detection.calibration import COMBINED, NormalScores
from seqrnn.detection.conformal import beta_interval
from seqrnn.detection.detector import Detector
from seqrnn.errors import UserError
from seqrnn.runtime import files


class Record(NamedTuple):
  """What `--follow` reads.

  Attributes:
    members: folder of each model in the workdir, and step of its checkpoint.
    rate: false-alarm rate of events.
    by_rank: whether an event is flagged by its rank.
    unknown, flag_unknown, top_k: as in `config.detect`.
    left_out: rows of calibration.npz that do not calibrate.
  """

  members: list[tuple[str, int]]
  rate: float
  by_rank: bool
  unknown: float
  flag_unknown: bool
  top_k: int
  left_out: list[int] = []


def content(
  normal: NormalScores, detector: Detector, workdir: Path
) -> dict[str, Any]:
  """The content of thresholds.json."""
  settings = detector.config.detect
  sessions, events = normal.scores[COMBINED], normal.events
  return {
    "head": settings.head,
    "rule": settings.rule,
    "members": [
      {"folder": member.folder.relative_to(workdir).as_posix(), "step": step}
      for member, step in zip(detector.members, detector.steps, strict=True)
    ],
    "sessions": {
      "rate": settings.rate,
      "calibration": sessions.n,
      "resolution": sessions.resolution,
      "rate_95": beta_interval(settings.rate, sessions.n),
    },
    "events": {
      "rate": settings.event_rate,
      "calibration": events.n,
      "resolution": events.resolution,
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


def read(path: Path) -> Record:
  """Reads thresholds.json for `--follow`.

  Raises:
    UserError: the file is missing or damaged, or is of a head that needs later
      events.
  """
  if not path.exists():
    raise UserError(
      f"--follow: {path}: no such file; --mode=detect without --follow writes"
      " it"
    )
  record = records.read_object(path)
  with records.reading(path):
    events, head = record["events"], record["head"]
    found = Record(
      [(str(m["folder"]), int(m["step"])) for m in record["members"]],
      float(events["rate"]),
      record["rule"] == "topk",
      float(events["unknown"]),
      bool(events["flag_unknown"]),
      int(events["top_k"]),
      [int(row) for row in record.get("left_out", [])],  # Since reviews.
    )
    if not found.members or math.isnan(found.rate + found.unknown):
      raise ValueError("a field is missing")
    if any(".." in Path(folder).parts for folder, _ in found.members):
      raise ValueError("a folder is not in the workdir")
  if head != "forward":
    raise UserError(
      f"{path}: config.detect.head={head!r}: must be forward, because --follow"
      " cannot read later events; run --mode=detect with forward"
    )
  return found
