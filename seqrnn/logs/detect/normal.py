"""Normal sessions: their scores, and which of them calibrate.

A log without labels has anomalous sessions, also among those that calibrate:
their scores are the highest, so new ones like them have no low p-value. Two
kinds are left out. Where the scores have a second mode, it is that of its
sessions (`cleaning`). The others have more evidence than is likely to occur
once in as many sessions as there are, if the tail continues as the body begins.

A person's answers overrule the cleaning: anomalous sessions are left out, and
normal ones stay. The answers do not change what is left out. Without the
sessions that are known to be anomalous, it may have too few sessions: a first
answer would then put the other sessions of the mode back into the calibration.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.values import MEASURES
from seqrnn.data.read import stored
from seqrnn.data.read.columns import Arrays
from seqrnn.errors import UserError
from seqrnn.logs.detect.cleaning import clean
from seqrnn.logs.detect.conformal import Calibration, CrossCalibration, Marks
from seqrnn.logs.detect.detector import SessionScores
from seqrnn.logs.detect.scores import (
  BASELINES,
  COMBINED,
  COUNTS,
  NETWORK,
  STANDARD,
  combined_names,
  round_scores,
)
from seqrnn.scoring.scorer import UNRANKED

UNANSWERED, NORMAL, ANOMALOUS = 0, 1, 2
_SCORE = "score "  # In a file, before the name of a score.
# Scores that are evidence by themselves: how many nats, how often -log p at
# most, as tails are extrapolated, and for how many tests (Bonferroni): counts,
# which have heavy tails in some logs, are one of the five standard scores.
ALONE = {
  COUNTS: (lambda scores: 10 * scores, 1, 5),  # Ten for a factor of e.
  **dict.fromkeys(MEASURES, (np.expm1, 2, 1)),
}


# The columns of `NormalSessions` with a row for each session, or each event.
_OF_SESSIONS = ("counts", "model", "sizes", "unknown", "left")
_OF_EVENTS = ("nll", "event_counts")


class NormalSessions(NamedTuple):
  """R distinct normal sessions, each scored by a model that has not seen it.

  Sessions of different models may be equal.

  Attributes:
    scores: name of a score -> float64 [R].
    counts: number of sessions of the log that are equal to each [R].
    model: number of the model of each, from 0 [R].
    sizes: number of scored events of each [R].
    unknown: whether each has an event that its model has not seen [R].
    nll: surprisals in nats of the events, session by session [N].
    event_counts: `counts` of the session of each event [N].
    order: the index in this table of each session, in the order of the log.
    steps: of the checkpoints of the models [K].
    left: whether a first pass has left each out, so that no model has been
      trained on it [R].
  """

  scores: Arrays
  counts: np.ndarray
  model: np.ndarray
  sizes: np.ndarray
  unknown: np.ndarray
  nll: np.ndarray
  event_counts: np.ndarray
  order: np.ndarray
  steps: np.ndarray
  left: np.ndarray

  @classmethod
  def of_scores(
    cls,
    scored: SessionScores,
    k: int,
    steps: Sequence[int],
    order: Sequence[int] | np.ndarray = (),
    left: np.ndarray | None = None,
  ) -> "NormalSessions":
    """The sessions that model k has scored.

    Sessions that are flagged for their length, and those whose count is 0, are
    left out.
    """
    sizes = np.diff(scored.bounds)
    every = cls(
      scores={name: x[0] for name, x in scored.scores.items()},
      counts=scored.counts,
      model=np.full(len(sizes), k),
      sizes=sizes,
      unknown=scored.count(scored.rank == UNRANKED) > 0,
      nll=scored.member_nll[0],
      event_counts=np.repeat(scored.counts, sizes),
      order=np.array(order, int),
      steps=np.array(steps),
      left=np.zeros(len(sizes), bool) if left is None else left,
    )
    return every.take(~scored.short & (scored.counts > 0))

  def take(self, which: np.ndarray) -> "NormalSessions":
    """The sessions for which `which` is true, bool [R]."""
    events = np.repeat(which, self.sizes)
    order = (np.cumsum(which) - 1)[self.order[which[self.order]]]
    columns = {name: getattr(self, name)[which] for name in _OF_SESSIONS}
    columns |= {name: getattr(self, name)[events] for name in _OF_EVENTS}
    scores = {name: x[which] for name, x in self.scores.items()}
    return self._replace(scores=scores, order=order, **columns)

  @classmethod
  def concatenate(cls, tables: "Sequence[NormalSessions]") -> "NormalSessions":
    """All sessions of some tables by the same models, with the same scores."""
    first = np.cumsum([0, *(len(table.counts) for table in tables)])
    orders = [x.order + shift for x, shift in zip(tables, first, strict=False)]
    join = lambda columns: np.concatenate([*columns])
    scores = {x: join(y.scores[x] for y in tables) for x in tables[0].scores}
    names = (*_OF_SESSIONS, *_OF_EVENTS)
    columns = {x: join(getattr(y, x) for y in tables) for x in names}
    order = np.concatenate(orders)
    return tables[0]._replace(scores=scores, order=order, **columns)

  def with_further(self, further: "NormalSessions") -> "NormalSessions":
    """With further sessions, which are spread evenly over the log's."""
    number = len(self.counts) + np.arange(len(further.counts))
    number = np.repeat(number, further.counts.astype(int))
    spread = np.linspace(0, 1, len(number)) * len(self.order)
    together = NormalSessions.concatenate([self, further])
    order = np.insert(self.order, spread.astype(int), number)
    return together._replace(order=order)

  def columns(self) -> Arrays:
    """The arrays of a file."""
    columns = self._asdict()
    return stored.under(_SCORE, columns.pop("scores")) | columns

  @classmethod
  def of_columns(cls, columns: Arrays) -> "NormalSessions":
    """The table of a file.

    Raises:
      LookupError, ValueError: a column is missing or has another length.
    """
    scores = stored.named(columns, _SCORE)
    # Files of older versions lack this column.
    columns = {"left": np.zeros(len(columns["counts"]), bool), **columns}
    table = cls._make([scores, *(columns[name] for name in cls._fields[1:])])
    of_sessions = [getattr(table, name) for name in _OF_SESSIONS]
    shape_R, shape_N = table.counts.shape, (table.sizes.sum(),)
    numbers = (table.model, table.steps), (table.order, table.counts)
    if (
      {x.shape for x in (*scores.values(), *of_sessions)} != {shape_R}
      or {table.nll.shape, table.event_counts.shape} != {shape_N}
      or any(x.ndim != 1 or y.ndim != 1 for x, y in numbers)
      or not all(np.isin(x, np.arange(len(y))).all() for x, y in numbers)
    ):
      raise ValueError("the columns of its sessions do not fit each other")
    return table

  def save(self, path: Path, key: str):
    """Writes calibration.npz; `key`: of the settings and data of the scores."""
    stored.save_arrays(path, self.columns() | {"rests_on": key})

  @classmethod
  def load(
    cls, path: Path, key: str, baselines: Iterable[str]
  ) -> "NormalSessions | None":
    """Reads calibration.npz; None: it is of another key, or lacks a baseline.

    Args:
      path: of the file.
      key: as of `save`.
      baselines: those that are read.

    Raises:
      UserError: the file is damaged.
    """
    columns = stored.load_arrays(path)
    with stored.reading(path):
      if str(columns.pop("rests_on", "")) != key:
        return None
      table = cls.of_columns(columns)
    others, scores = BASELINES.keys() - baselines, table.scores
    if not {*NETWORK, *baselines} <= scores.keys():
      return None
    kept = {name: x for name, x in scores.items() if name not in others}
    return table._replace(scores=kept)


class Selection(NamedTuple):
  """The sessions that calibrate, among R normal ones.

  Attributes:
    sessions: all of them.
    calibrates: bool [R], whether a session calibrates.
    answers: NORMAL, ANOMALOUS or UNANSWERED [R].
  """

  sessions: NormalSessions
  calibrates: np.ndarray
  answers: np.ndarray

  def answered(self, answer: int) -> int:
    """The number of sessions with an answer, equal ones included."""
    return int(self.sessions.counts[self.answers == answer].sum())

  @property
  def left_out(self) -> int:
    """The number of sessions that do not calibrate."""
    return int(self.sessions.counts[~self.calibrates].sum())

  @property
  def cleaned(self) -> int:
    """The number of sessions that are left out without an answer.

    If all of them are normal, so many more than the rate says may be flagged.
    """
    return self.left_out - self.answered(ANOMALOUS)


def select(
  sessions: NormalSessions, contamination: float, answers: np.ndarray | None
) -> Selection:
  """Selects the sessions that calibrate.

  Args:
    sessions: all normal ones.
    contamination: as `detect.contamination`.
    answers: of the sessions [R]; None: there are none.

  Raises:
    UserError: no session of a model is left.
  """
  model = sessions.model
  if answers is None:
    answers = np.full(len(model), UNANSWERED)
  left = sessions.left.copy()
  left[~left] = contaminates(sessions.take(~left), contamination)
  left_out = left & (answers != NORMAL) | (answers == ANOMALOUS)
  if len(np.unique(model[~left_out])) < len(np.unique(model)):
    raise UserError(
      f"review.csv, detect.contamination={contamination:g}: leave no session of"
      " a fold for its calibration"
    )
  return Selection(sessions, ~left_out, answers)


def contaminates(
  sessions: NormalSessions, contamination: float, logs: float = 1.0
) -> np.ndarray:
  """Whether each session seems to be anomalous [R].

  At most the share `contamination` is, by each of the reasons.

  Args:
    sessions: normal ones.
    contamination: as `detect.contamination`.
    logs: in so many logs of this size, a session with the evidence of an
      anomalous one is likely to occur once.
  """
  counts, model, scores = sessions.counts, sessions.model, sessions.scores
  anomalous = np.zeros(len(counts), bool)
  if not contamination or not len(counts):
    return anomalous
  for name in {"max", *MEASURES} & scores.keys():
    anomalous |= clean(scores[name], counts, model, contamination)
  normal = of_every(sessions, STANDARD)
  # Counts, values and times are no reason: they may have heavy tails.
  nats = normal.product.own_by_body(normal.products(sessions, True), model)
  share = Calibration(nats, counts).p_values(nats)
  rare = nats > np.log(logs * counts.sum())
  return anomalous | rare & (share <= contamination)


class NormalScores(NamedTuple):
  """Scores of normal sessions by models that have not seen them.

  Attributes:
    scores: name of a score, or COMBINED -> scores of the sessions.
    events: surprisal of the sessions' events.
    names: of the scores that are combined.
    selection: which normal sessions are these.
    sessions: those that are selected.
    product: the products of their p-values, as `evidence_of`.
  """

  scores: dict[str, CrossCalibration]
  events: CrossCalibration
  names: tuple[str, ...]
  selection: Selection
  sessions: NormalSessions
  product: CrossCalibration

  def evidence(self, scores: Arrays) -> np.ndarray:
    """As `evidence_of`, by each model [E, K, D].

    The largest is the combined score. It is no -log p: it must be calibrated
    again.

    Args:
      scores: name -> scores of the sessions [K, D].
    """
    neg_log_p = {
      name: self.scores[name].each(Calibration.neg_log_p, scores[name])
      for name in self.names
    }
    product = self.product.each(Calibration.by_body, _product(neg_log_p))
    return evidence_of(product, neg_log_p, scores)

  def combined(self, sessions: NormalSessions, is_normal: Marks) -> np.ndarray:
    """The combined score of each session, by its own model [R].

    Args:
      sessions: normal ones.
      is_normal: as in `CrossCalibration.own_neg_log_p`.
    """
    neg_log_p = self._own(sessions, is_normal)
    product = self.product.own_by_body(_product(neg_log_p), sessions.model)
    return evidence_of(product, neg_log_p, sessions.scores).max(axis=0)

  def products(self, sessions: NormalSessions, is_normal: Marks) -> np.ndarray:
    """-log of the product of p-values of each, as `combined` [R]."""
    return _product(self._own(sessions, is_normal))

  def compact(self) -> NormalSessions:
    """The sessions, with each surprisal of a model once, at its first session.

    They calibrate as all do, and do not grow with the number of events.
    """
    models, first_K = np.unique(self.sessions.model, return_index=True)
    groups = [self.events.groups[k] for k in models[np.argsort(first_K)]]
    sizes = np.zeros_like(self.sessions.sizes)
    sizes[np.sort(first_K)] = [len(group.scores) for group in groups]
    return self.sessions._replace(
      sizes=sizes,
      nll=np.concatenate([group.scores for group in groups]),
      event_counts=np.concatenate(
        [-np.diff(group.above).astype(int) for group in groups]
      ),
    )

  def _own(self, sessions: NormalSessions, is_normal: Marks) -> Arrays:
    """Name of a score -> -log p of each session, by its own model [R]."""
    return {
      name: self.scores[name].own_neg_log_p(
        sessions.scores[name], sessions.model, is_normal
      )
      for name in self.names
    }


def normal_scores(
  sessions: NormalSessions,
  settings: Config,
  answers: np.ndarray | None = None,
  further: NormalSessions | None = None,
) -> NormalScores:
  """The scores of the normal sessions that calibrate.

  Args:
    sessions: all normal ones.
    settings: of `config.detect`.
    answers: NORMAL, ANOMALOUS or UNANSWERED for each; None: no answers.
    further: sessions that calibrate, too; None: there are none.

  Raises:
    UserError: there are no sessions, or none of a model is selected.
  """
  if not len(sessions.counts):
    raise UserError(
      f"config.detect.short={settings.short!r}: every normal session has at"
      " most data.window events, so no session is left for calibration"
    )
  names = combined_names(settings)
  if settings.scores is None:
    names += tuple(name for name in MEASURES if name in sessions.scores)
  for name in names:
    if name not in sessions.scores:
      raise UserError(
        f"config.detect.scores={settings.scores!r}: the training sessions have"
        f" too few numbers or times for {name!r}"
      )
  selection = select(sessions, settings.contamination, answers)
  if further is not None:
    sessions, count = sessions.with_further(further), len(further.counts)
    selection = Selection(
      sessions,
      np.append(selection.calibrates, np.ones(count, bool)),
      np.append(selection.answers, np.full(count, UNANSWERED)),
    )
  return of_selection(selection, names)


def of_selection(selection: Selection, names: tuple[str, ...]) -> NormalScores:
  """The scores of the selected sessions.

  Args:
    selection: normal sessions, and which of them calibrate.
    names: of the scores that are combined.
  """
  some, by_model = (
    selection.sessions.take(selection.calibrates),
    CrossCalibration.by_model,
  )
  of_sessions = some.counts, some.model, len(some.steps)
  events = by_model(
    round_scores(some.nll),
    some.event_counts,
    np.repeat(some.model, some.sizes),
    len(some.steps),
  )
  by_name = {name: by_model(x, *of_sessions) for name, x in some.scores.items()}
  nothing = CrossCalibration([])
  normal = NormalScores(by_name, events, names, selection, some, nothing)
  products = by_model(normal.products(some, True), *of_sessions)
  normal = normal._replace(product=products)
  by_name[COMBINED] = by_model(normal.combined(some, True), *of_sessions)
  return normal


def of_every(sessions: NormalSessions, names: tuple[str, ...]) -> NormalScores:
  """As `of_selection`, of all sessions, some of which were perhaps selected."""
  every = np.ones(len(sessions.counts), bool)
  answers = np.full(len(every), UNANSWERED)
  return of_selection(Selection(sessions, every, answers), names)


def _product(neg_log_p: Arrays) -> np.ndarray:
  """-log of the product of the p-values of the scores of events."""
  of_events = [x for name, x in neg_log_p.items() if name not in MEASURES]
  return np.sum(of_events or [0 * x for x in neg_log_p.values()], axis=0)


def evidence_of(
  product: np.ndarray, neg_log_p: Arrays, scores: Arrays
) -> np.ndarray:
  """The evidence of which the largest is the combined score [E, ...].

  The first is that of the product of the p-values of the scores of events
  (Fisher 1925), as -log p of its own distribution. The others are those scores
  of which one clear sign is enough, `ALONE`: in a product with usual p-values
  it would be lost, or hide anomalous events.

  Args:
    product: its evidence.
    neg_log_p: name -> -log p.
    scores: name -> scores.
  """
  others = []
  for name in (name for name in neg_log_p if name in ALONE):
    nats, most, tests = ALONE[name]
    alone = np.minimum(nats(scores[name]), most * neg_log_p[name])
    others.append(alone - np.log(tests))
  return np.stack([product, *others])
