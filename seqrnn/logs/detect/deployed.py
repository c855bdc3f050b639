"""A detector as its last detection left it: it scores without the corpus.

deployed.npz has the models' checkpoints, the settings that decide verdicts, the
calibration, all that baselines have learned, the distributions of values and
times, and the idle times. Its size depends little on that of the log.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config import derived
from seqrnn.config.read import Config, refuse_unless
from seqrnn.data.idle_times import IdleTimes
from seqrnn.data.logs import formats
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.logs.values import Tails, joined
from seqrnn.data.read import stored
from seqrnn.data.splits import Pieces
from seqrnn.errors import UserError
from seqrnn.experiment import Build
from seqrnn.logs.detect.detector import Detector, load_detector
from seqrnn.logs.detect.normal import NormalScores, NormalSessions, of_every
from seqrnn.logs.detect.scores import (
  BASELINES,
  COMBINED,
  Learned,
  combined_names,
)
from seqrnn.runtime import files

DEPLOYED = "deployed.npz"
LOCK = ".detect.lock"  # In the workdir, held while a detection runs or is read.
# Settings of `detect` that decide verdicts, beside the scores.
_SETTINGS = ("head", "rule", "rate", "budget", "top_k", "short", "idle")
# A log is silent after so many times its longest pause, and so many seconds.
_PAUSES, _BUFFERED = 2.0, 60.0
_LATEST = 253402300799.0  # The last second that a date can have.


class Deployed(NamedTuple):
  """A detector that scores sessions as the last detection of a run does.

  Attributes:
    config: of the run, with the settings of `detect` that decide verdicts.
    detector: its models and baselines; its members' sessions are not known.
    normal: scores of normal sessions.
    idle: when a session that is followed has ended: `patience` of `data.cuts`.
      It is longer than the idle times, because a session that ends here too
      early is cut in two, and its first part seems to lack its end.
    cut: when a log that is examined at once cuts a session.
    silence: seconds without a line after which a log that is followed is silent
      as a whole: twice the longest pause of the training log.
    span: the first and the last time of the training log; NaN: unknown.
    accepted: events as read that training lacks, without which sessions are
      judged, because a person calls them normal; and the known events that they
      replace, as which they count; None: as none.
    shares_E: the share of the training sessions that have each event.
  """

  config: Config
  detector: Detector
  normal: NormalScores
  idle: IdleTimes
  cut: IdleTimes = IdleTimes()
  silence: float = np.inf
  span: tuple[float, float] = (math.nan, math.nan)
  accepted: Mapping[str, str | None] = {}
  shares_E: np.ndarray = np.zeros(0)


def write_deployed(
  path: Path,
  detector: Detector,
  normal: NormalScores,
  trained: Pieces,
  accepted: Mapping[str, str | None],
  shares_E: np.ndarray,
):
  """Writes deployed.npz.

  Args:
    path: of the file.
    detector: with its members.
    normal: its calibration.
    trained: the training split, whose log has the idle times.
    accepted: as of `Deployed`.
    shares_E: as of `Deployed`.
  """
  members, settings = detector.members, detector.config.detect
  cuts = trained.corpus.cuts
  record = {
    "settings": {name: settings[name] for name in _SETTINGS},
    "scores": ",".join(normal.names),
    # A fold is a folder of the workdir; without folds, its own model decides.
    "members": [
      ("folds/" + member.folder.name if settings.folds else ".", step)
      for member, step in zip(members, detector.steps, strict=True)
    ],
    "idle": [cuts.patience, cuts.idle] if cuts else [IdleTimes()] * 2,
    "silence": _silence(trained.corpus.seconds),
    "span": span_of(trained),
    "accepted": accepted,
  }
  arrays = stored.under("calibration ", normal.compact().columns())
  for k, tails in enumerate(detector.tails):
    arrays |= stored.under(f"tails {k} ", tails._asdict())
  for k, learned in enumerate(detector.learned):
    arrays |= stored.under(f"learned {k} ", learned._asdict())
  arrays |= {"shares": shares_E, "record": json.dumps(record)}
  stored.save_arrays(path, arrays)


def span_of(pieces: Pieces) -> tuple[float, float]:
  """The first and the last time of a log; NaN: unknown."""
  seconds = pieces.corpus.seconds
  if seconds is None:
    return math.nan, math.nan
  return float(np.nanmin(seconds)), float(np.nanmax(seconds))


def _silence(seconds: np.ndarray | None) -> float:
  """After how many seconds a log is silent, by the times of training events."""
  known = np.sort([] if seconds is None else seconds)  # NaN comes last.
  pause = float(np.nanmax(np.diff(known), initial=0.0))
  # A program may write its lines a buffer at a time.
  return max(_PAUSES * pause, _BUFFERED) if pause else math.inf


def restore(build: Build, config: Config, workdir: Path) -> Deployed:
  """Reads a detector from its workdir alone.

  It waits for a detection, which may replace the models of the last one.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the run. The settings of `detect` that decide verdicts are
      replaced by those of the last detection, except an idle time.
    workdir: of the run.

  Raises:
    UserError: there is no detection, or a file is damaged.
  """
  path = workdir / LOCK
  lock = files.locked(path, "searched for anomalies", wait=True)
  # Who may not write reads without a lock, as from a medium that is read-only.
  may_write = os.access(path if path.exists() else workdir, os.W_OK)
  with lock if may_write else nullcontext():
    return _restore(build, config, workdir)


def _restore(build: Build, config: Config, workdir: Path) -> Deployed:
  path = workdir / "detect" / DEPLOYED
  if not path.exists():
    raise UserError(f"{path}: no such file; --mode=detect writes it")
  arrays = stored.load_arrays(path)
  with stored.reading(path):
    record = json.loads(str(arrays["record"]))
    fields = {f"detect.{name}": record["settings"][name] for name in _SETTINGS}
    fields["detect.scores"] = record["scores"]
    if (idle_seconds := config.detect.idle) is not None:
      fields["detect.idle"] = idle_seconds
    config = derived.checked(config, fields)
    pairs = zip(record["members"], arrays["calibration steps"], strict=True)
    checkpoints = [
      (_inside(workdir, folder), int(step)) for (folder, step), _ in pairs
    ]
    if "ids" in arrays:
      raise ValueError("it is of an earlier version of seqrnn")
    names = combined_names(config.detect)
    calibrated = stored.named(arrays, "calibration ")
    normal = of_every(NormalSessions.of_columns(calibrated), names)
    models = range(len(checkpoints))
    learned = [
      Learned.of_columns(stored.named(arrays, f"learned {k} ")) for k in models
    ]
    idle, cut = (IdleTimes(*fields) for fields in record["idle"])
    silence, shares_E = float(record["silence"]), arrays["shares"]
    first, last = map(float, record.get("span", (math.nan,) * 2))
    tails = [
      joined([Tails(**stored.named(arrays, f"tails {k} "))]) for k in models
    ]
  baselines = [name for name in names if name in BASELINES]
  known = zip(learned, tails, strict=True)
  detector = load_detector(
    build, config, workdir, checkpoints, known, baselines
  )
  if idle_seconds is not None:
    clock = idle.clock or "seconds"
    idle = idle.limited(idle_seconds)._replace(clock=clock)
    cut = cut.limited(idle_seconds)
  accepted = dict(record.get("accepted", {}))
  return Deployed(
    *(config, detector, normal, idle, cut, silence, (first, last), accepted),
    shares_E,
  )


def event_shares(sessions: Sessions) -> np.ndarray:
  """The share of the sessions that have each event of the vocabulary."""
  return np.bincount(sessions.events_once()[1]) / len(sessions.names)


def _inside(workdir: Path, folder: str) -> Path:
  """A folder of the workdir; a link may not lead out of it."""
  path = Path(os.path.realpath(workdir / folder))
  if not path.is_relative_to(os.path.realpath(workdir)):
    raise ValueError(f"folder {folder!r} is not in the workdir")
  return path


def refuse_comparing(deployed: Deployed, how: str):
  """Refuses a rule that does not judge each session by itself.

  Args:
    deployed: the detector.
    how: it is used, for the message.

  Raises:
    UserError: so.
  """
  rule = deployed.config.detect.rule
  if rule in ("budget", "bh"):
    raise UserError(
      f"{how}: config.detect.rule={rule!r}: compares all sessions; run"
      " --mode=detect with rate, events or topk"
    )


def lacking(rate: float, count: int, span: tuple[float, float]) -> str:
  """How many normal sessions a rate needs, and when they are there, in words.

  Empty: they are there.

  Args:
    rate: as `detect.rate`.
    count: the number of normal sessions.
    span: in which they were logged, as of `Deployed`.
  """
  needed = math.ceil((1 - 1e-9) / rate) - 1
  if count >= needed:
    return ""
  text = f"needs {needed:,} normal sessions to flag one, and has {count:,}"
  if span[1] > span[0] and count:
    then = span[0] + (span[1] - span[0]) * needed / count
    when = formats.in_words(min(then, _LATEST))
    text += f"; at the pace of this log there are enough at {when}"
  return text


def refuse_powerless(
  normal: NormalScores, settings: Config, span: tuple[float, float]
):
  """Refuses a follower that can never raise an alarm.

  Args:
    normal: the calibration.
    settings: of `config.detect`.
    span: of the training log, as of `Deployed`.

  Raises:
    UserError: the rate is below all p-values.
  """
  why = lacking(settings.rate, normal.scores[COMBINED].n, span)
  if why and settings.rule == "rate":
    raise UserError(
      f"--follow: config.detect.rate={settings.rate:g}: {why}; train on a log"
      " until then, or detect with a higher rate"
    )


def refuse_unfollowed(deployed: Deployed):
  """Refuses a detector that cannot follow sessions.

  Raises:
    UserError: it reads later events, or its rule compares sessions.
  """
  config, experiment = deployed.config, deployed.detector.experiment
  if "forward" not in experiment.heads or experiment.decoder is None:
    unless = f" unless {experiment.unless}" if experiment.unless else ""
    raise UserError(
      f"--follow: task={config.task!r} does not predict the next event{unless}"
    )
  refuse_comparing(deployed, "--follow")
  refuse_powerless(deployed.normal, config.detect, deployed.span)
  refuse_unless(
    config,
    {
      "data.boundaries": True,
      "data.mapping": "many_to_many",
      "detect.head": "forward",
    },
    "--follow scores each event of a session before the next one is known",
  )
