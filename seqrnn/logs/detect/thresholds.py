"""thresholds.json: the models of a detection, and the rates of its flags."""

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from seqrnn.errors import UserError
from seqrnn.logs.detect import records
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.choice import Combination
from seqrnn.logs.detect.conformal import beta_interval, event_rate
from seqrnn.logs.detect.detector import Detector
from seqrnn.runtime import files

# Settings of `detect` that decide verdicts.
_SETTINGS = (
  *("head", "rule", "rate", "budget", "top_k"),
  *("short", "idle", "scores"),
)


class Record(NamedTuple):
  """What a deployed detector reads.

  Attributes:
    members: folder of each model in the workdir, and step of its checkpoint.
    settings: of `config.detect`, those that decide verdicts.
    combination: the scores that are combined.
    replaced: as of `choice.Choice`.
    left_out: rows of calibration.npz that do not calibrate.
  """

  members: list[tuple[str, int]]
  settings: dict[str, Any]
  combination: Combination
  replaced: bool
  left_out: list[int]


def content(
  normal: NormalScores, detector: Detector, workdir: Path
) -> dict[str, Any]:
  """The content of thresholds.json."""
  settings = detector.config.detect
  sessions, events = normal.scores[COMBINED], normal.events
  names, how = normal.choice.combination
  decisive = {name: settings[name] for name in _SETTINGS}
  return {
    "settings": {**decisive, "scores": ",".join(names), "combine": how},
    "replaced_standard": normal.choice.replaced,
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
      "rate": event_rate(settings),
      "calibration": events.n,
      "resolution": events.resolution,
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
  """Reads thresholds.json.

  Raises:
    UserError: the file is missing or damaged.
  """
  if not path.exists():
    raise UserError(f"{path}: no such file; --mode=detect writes it")
  record = records.read_object(path)
  with records.reading(path):
    settings = {name: record["settings"][name] for name in _SETTINGS}
    names = tuple(str(name) for name in settings["scores"].split(","))
    found = Record(
      [(str(m["folder"]), int(m["step"])) for m in record["members"]],
      settings,
      Combination(names, str(settings["combine"])),
      bool(record.get("replaced_standard")),
      [int(row) for row in record["left_out"]],
    )
    if not found.members:
      raise ValueError("there is no model")
    workdir = os.path.realpath(path.parents[1])
    for folder, _ in found.members:
      inside = Path(os.path.realpath(os.path.join(workdir, folder)))
      if not inside.is_relative_to(workdir):
        raise ValueError(f"folder {folder!r} is not in the workdir")
  return found
