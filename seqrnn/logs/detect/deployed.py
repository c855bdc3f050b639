"""A detector as its last detection left it: it scores without the corpus.

`write` stores in deployed.npz what a detection learned from the corpus beside
the calibration: the sessions that baselines are fitted to, and the idle times.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import vocabulary
from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.cuts import Cuts
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.splits import Pieces
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.logs.detect import (
  baselines,
  calibration,
  ensemble,
  inputs,
  records,
  thresholds,
)
from seqrnn.logs.detect.calibration import (
  CALIBRATION,
  FALSE_ALARMS,
  NormalScores,
)
from seqrnn.logs.detect.choice import Choice
from seqrnn.logs.detect.detector import Detector, combined_names, whole_sessions
from seqrnn.logs.detect.ensemble import Ensemble
from seqrnn.logs.detect.selection import UNANSWERED, Selection
from seqrnn.runtime import sharding

DEPLOYED = "deployed.npz"


class IdleTimes(NamedTuple):
  """After how much silence a session has ended.

  Attributes:
    clock: "seconds" or "lines"; empty: sessions end by no silence.
    longest: the idle time after all other symbols.
    first: symbol, as read -> the idle time before it; of other symbols 0.
    last: symbol, as read -> the idle time after it.
  """

  clock: str = ""
  longest: float = np.inf
  first: dict[str, float] = {}
  last: dict[str, float] = {}

  def before(self, symbol: str) -> float:
    """A session that begins sooner after the begin of a log may be cut."""
    return self.first.get(symbol, 0.0)

  def after(self, symbol: str) -> float:
    """A session that is silent for longer after the symbol has ended."""
    return self.last.get(symbol, self.longest)


class Deployed(NamedTuple):
  """What scores sessions as the last detection of a run does.

  Attributes:
    config: of the run, with the settings of `detect` that decide verdicts.
    detector: its models and baselines; its members' sessions are not known.
    normal: scores of normal sessions.
    idle: when a session that is followed has ended: `patience` of `data.cuts`.
      It is longer than the idle times, because a session that ends here too
      early is cut in two, and its first part seems to lack its end.
    cut: when a log that is examined at once cuts a session.
  """

  config: Config
  detector: Detector
  normal: NormalScores
  idle: IdleTimes
  cut: IdleTimes = IdleTimes()


def write(folder: Path, detector: Detector, trained: Pieces):
  """Writes deployed.npz.

  Args:
    folder: of the file.
    detector: whose baselines are fitted to the sessions of its members.
    trained: the training split, whose log has the idle times.
  """
  trains = [member.train for member in detector.members]
  sessions = inputs.concatenate(
    [data.of_pieces(train, detector.names) for train in trains]
  )
  sizes = list(map(len, trains))
  member = np.repeat(np.arange(len(sizes)), sizes)
  distinct = sessions.distinct()
  once = sessions.take(distinct.first)
  begins, ends = once.whole
  counts_KD = np.zeros((len(sizes), len(distinct.first)), np.int64)
  np.add.at(counts_KD, (member, distinct.which), 1)
  cuts = trained.corpus.cuts
  idle = cut = IdleTimes()
  if cuts is not None:
    idle = _idle_times(cuts, trained, cuts.patience, cuts.patience_V)
    cut = _idle_times(cuts, trained, cuts.idle, cuts.last_V)
  text = json.dumps([idle._asdict(), cut._asdict()]).encode()
  np.savez_compressed(
    folder / DEPLOYED,
    ids=once.ids,
    sizes=np.diff(once.bounds),
    begins=begins,
    ends=ends,
    counts=counts_KD.ravel(),
    idle=np.frombuffer(text, np.uint8),
  )


def _idle_times(
  cuts: Cuts, trained: Pieces, longest: float, last_V: np.ndarray
) -> IdleTimes:
  """The idle times of a log, of the symbols that have their own."""
  symbols = trained.corpus.symbols
  first_V = np.minimum(cuts.first_V, cuts.idle)
  return IdleTimes(
    cuts.clock,
    longest,
    {symbols[v]: float(first_V[v]) for v in np.flatnonzero(first_V)},
    {symbols[v]: float(last_V[v]) for v in np.flatnonzero(last_V != longest)},
  )


def restore(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Deployed:
  """Reads a detector from its workdir alone.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the run. The settings of `detect` that decide verdicts are
      replaced by those of the last detection, except an idle time.
    workdir: of the run.

  Raises:
    UserError: there is no detection, or a file is damaged.
  """
  folder = workdir / "detect"
  record = thresholds.read(folder / "thresholds.json")
  config = copy.deepcopy(config)
  given_idle = config.detect.idle
  with records.reading(folder / "thresholds.json"):
    for name, value in record.settings.items():
      config.detect[name] = value
    if given_idle is not None:
      config.detect.idle = given_idle
    config_lib.check(config)
  vocabularies = vocabulary.load(workdir / "vocabulary.json")
  experiment = build(whole_sessions(config, vocabularies), vocabularies)
  params, steps = ensemble.restore(
    experiment, [(workdir / name, step) for name, step in record.members]
  )
  normal, seen = read_calibration(folder / CALIBRATION, record)
  trained, (idle, cut) = _read_deployed(folder / DEPLOYED, len(steps))
  wanted = set(combined_names(config.detect)) & set(baselines.BASELINES)
  fitted = [
    {name: baselines.BASELINES[name](sessions) for name in sorted(wanted)}
    for sessions in trained
  ]
  place = sharding.replicated(sharding.mesh())
  models = jax.device_put(Ensemble(params, seen), place)
  detector = Detector(config, experiment, [], steps, models, fitted)
  if given_idle is not None:
    clock = idle.clock or "seconds"
    first = {s: min(time, given_idle) for s, time in cut.first.items()}
    cut = IdleTimes(cut.clock, given_idle, first)
    idle = IdleTimes(clock, given_idle, idle.first)
  return Deployed(config, detector, normal, idle, cut)


def read_calibration(
  path: Path, record: thresholds.Record
) -> tuple[NormalScores, np.ndarray]:
  """The normal scores that calibrate, and `Ensemble.seen`."""
  arrays = records.read_arrays(path)
  with records.reading(path):
    kept = np.ones(len(arrays["sizes"]), bool)
    if not all(0 <= row < len(kept) for row in record.left_out):
      raise ValueError("lacks sessions that were left out")
    kept[record.left_out] = False
    answers = np.full(len(kept), UNANSWERED)
    selection = Selection(kept, arrays["counts"], answers, None)
    if (path.parent / FALSE_ALARMS).exists():
      further = records.read_arrays(path.parent / FALSE_ALARMS)
      arrays, selection = calibration.joined(arrays, further, selection)
    choice = Choice(record.combination, replaced=record.replaced)
    normal = calibration.of_choice(arrays, selection, choice)
    seen = arrays["seen"].astype(bool).reshape(len(arrays["steps"]), -1)
    return normal, seen


def _read_deployed(
  path: Path, models: int
) -> tuple[list[Sessions], list[IdleTimes]]:
  """The sessions to which the baselines of each model are fitted, and times."""
  arrays = records.load(path)
  with records.reading(path):
    ids, sizes = arrays["ids"].astype(np.int32), arrays["sizes"]
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    counts_KD = arrays["counts"].reshape(models, len(sizes))
    if bounds[-1] != len(ids) or counts_KD.min(initial=0) < 0:
      raise ValueError("has arrays of different lengths")
    begins, ends = (arrays[name].astype(bool) for name in ("begins", "ends"))
    names = [""] * len(sizes)
    once = Sessions(ids, bounds, names, begins=begins, ends=ends)
    times: list[dict[str, Any]] = json.loads(arrays["idle"].tobytes())
    idle, cut = (IdleTimes(**fields) for fields in times)
    return [
      once.take(np.repeat(np.arange(len(sizes)), counts_D))
      for counts_D in counts_KD
    ], [idle, cut]


def refuse_unfollowed(deployed: Deployed):
  """Refuses a detector that cannot follow sessions.

  Raises:
    UserError: it reads later events, or its rule compares sessions.
  """
  config, experiment = deployed.config, deployed.detector.experiment
  settings = config.detect
  if "forward" not in experiment.heads or experiment.decoder is None:
    unless = f" unless {experiment.unless}" if experiment.unless else ""
    raise UserError(
      f"--follow: task={config.task!r} does not predict the next event{unless}"
    )
  if settings.head != "forward":
    raise UserError(
      f"--follow: config.detect.head={settings.head!r}: must be forward,"
      " because later events are not known; run --mode=detect with forward"
    )
  if settings.rule in ("budget", "bh"):
    raise UserError(
      f"--follow: config.detect.rule={settings.rule!r}: compares all sessions;"
      " run --mode=detect with rate, events or topk"
    )
  config_lib.refuse_unless(
    config,
    {"data.boundaries": True, "data.mapping": "many_to_many"},
    "--follow scores every event of a session, including the first event",
  )
