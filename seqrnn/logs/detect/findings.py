"""Findings: which sessions and events are anomalous, how severe, and why.

`decide` is a function of arrays. A detection calls it with all sessions, a
worker of Spark with its part of them, a follower with one open session.

A flagged session has up to three signs, with these columns in sessions.csv:

- `p_value` is at most half of `detect.rate`, and at least half of the models
  give the session a higher score than all their normal sessions (`models`); the
  other models may have anomalous sessions among these;
- it has an unknown event (`unknown_events`);
- at least a quarter of its `events` are flagged (`flagged_events`).

An alarm without a sign is low, with one sign medium, with more high. An alarm
for a session's length alone (`detect.short`) is low.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.sessions import Distinct, Sessions
from seqrnn.data.logs.values import MEASURES, most_unusual
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.logs.detect import conformal
from seqrnn.logs.detect.detector import Detector, SessionScores
from seqrnn.logs.detect.normal import ALONE, NormalScores
from seqrnn.logs.detect.scores import (
  COMBINED,
  COUNTS,
  EVENT,
  PAIR,
  SHORT,
  UNSEEN,
  in_words,
  round_scores,
)
from seqrnn.scoring.scorer import UNRANKED

SEVERITIES = ("", "low", "medium", "high")  # The first: no alarm.

_BEFORE, _AFTER = 3, 2  # Events around the most surprising one.
# Events with at least this share of a session's highest surprisal are its
# surprising ones.
_SURPRISING = 0.5
# Sessions are alike if they have this share of their surprising events in
# common.
_COMMON = 0.5

Place = dict[str, str | int | None]  # Of an event: file, line and timestamp.


class Decision(NamedTuple):
  """Flags of D distinct sessions and their N events, and what explains them.

  Attributes:
    scores: name -> -log p of the sessions [D], as `neg_log_p`.
    combined_KD: the combined score of the sessions by each model [K, D].
    p: p-values of the sessions [D]; NaN for short sessions.
    flags: whether a session is flagged [D].
    event_p: p-values of the events [N].
    event_flags: whether an event is flagged [N].
    flagged_events: number of flagged events [D].
    unknown_events: number of unknown events [D].
    models: number of models that give a session a higher combined score than
      all their normal sessions [D].
    severity: an index of `SEVERITIES` for each session [D].
    reasons: a key of `WORDS` for each session: the first of the combined scores
      with the least p-value; "": it is not flagged.
  """

  scores: dict[str, np.ndarray]
  combined_KD: np.ndarray
  p: np.ndarray
  flags: np.ndarray
  event_p: np.ndarray
  event_flags: np.ndarray
  flagged_events: np.ndarray
  unknown_events: np.ndarray
  models: np.ndarray
  severity: np.ndarray
  reasons: list[str]


def decide(
  scored: SessionScores, normal: NormalScores, settings: Config
) -> Decision:
  """Compares sessions and events with normal ones, and flags some of them.

  The rule is applied to the sessions that are not flagged for their length, as
  if there were no other sessions.

  Args:
    scored: the sessions' scores by each model; of its events those by each
      model, their ranks and their bounds.
    normal: scores of normal sessions.
    settings: of `config.detect`.
  """
  evidence_EKD = normal.evidence(scored.scores)
  combined_KD, short = evidence_EKD.max(axis=0), scored.short
  scores = {
    name: normal.scores[name].neg_log_p(x)
    for name, x in {COMBINED: combined_KD, **scored.scores}.items()
  }
  scores[COMBINED][short] = np.inf
  calibration = normal.scores[COMBINED]
  p = calibration.p_values(combined_KD)
  event_p = normal.events.p_values(map(round_scores, scored.member_nll))
  event_flags = _flag_events(scored, event_p, settings)
  flagged = scored.count(event_flags)
  unknown = scored.count(scored.rank == UNRANKED)
  match settings.rule:
    case "rate":
      flags = calibration.flags(scores[COMBINED], settings.rate)
    case "budget":
      flags = np.zeros(len(p), bool)
      order = np.argsort(-scores[COMBINED], kind="stable")
      flags[order[~short[order]][: settings.budget]] = True
    case "bh":
      tested = np.repeat(p[~short], scored.counts[~short])
      rejected = tested[conformal.benjamini_hochberg(tested, settings.rate)]
      flags = p <= rejected.max(initial=0)
    case _:  # events, topk
      flags = flagged > 0
  flags = flags | short
  models, groups = calibration.beyond(combined_KD)
  is_far = conformal.is_flagged(2 * p, settings.rate) & (2 * models >= groups)
  many = (flagged > 0) & (4 * flagged >= scored.lengths)
  signs = np.where(short, 0, np.sum([is_far, unknown > 0, many], axis=0))
  reasons = _reasons(scored, normal, evidence_EKD, unknown > 0, settings.rule)
  return Decision(
    scores=scores,
    combined_KD=combined_KD,
    p=np.where(short, np.nan, p),
    flags=flags,
    event_p=event_p,
    event_flags=event_flags,
    flagged_events=flagged,
    unknown_events=unknown,
    models=np.where(short, 0, models),
    severity=np.where(flags, np.minimum(1 + signs, 3), 0),
    reasons=np.where(flags, reasons, "").tolist(),
  )


def _flag_events(
  scored: SessionScores, event_p: np.ndarray, settings: Config
) -> np.ndarray:
  """Whether each event is flagged; one that no model has seen always is [N]."""
  if settings.rule == "topk":
    flags = scored.rank > settings.top_k
  else:
    flags = conformal.is_flagged(event_p, conformal.event_rate(settings))
  return flags | (scored.rank == UNRANKED)


def _reasons(
  scored: SessionScores,
  normal: NormalScores,
  evidence_EKD: np.ndarray,
  is_unknown: np.ndarray,
  rule: str,
) -> np.ndarray:
  """The score that decides on each session [D].

  Args:
    scored: scores of the sessions.
    normal: scores of normal sessions.
    evidence_EKD: of which the largest is the combined score.
    is_unknown: whether a session has an unknown event.
    rule: as `detect.rule`.
  """
  others = [name for name in normal.names if name in ALONE]
  names = [name for name in normal.names if name not in MEASURES] or others
  p_SD = [normal.scores[name].p_values(scored.scores[name]) for name in names]
  reasons = np.array([*names, PAIR])[np.argmin(p_SD, axis=0)]
  reasons[(reasons == UNSEEN) & ~is_unknown] = PAIR
  largest = evidence_EKD.mean(axis=1).argmax(axis=0)
  reasons = np.where(largest, np.array([EVENT, *others])[largest], reasons)
  reasons[(reasons == COUNTS) & is_unknown] = UNSEEN
  if rule in ("events", "topk"):
    reasons = np.full(len(reasons), EVENT)
  return np.where(scored.short, SHORT, reasons)


class Explanation(NamedTuple):
  """Why a session is flagged, and the event that decides.

  Attributes:
    reason: in words; empty: it is not flagged.
    position: of the event in the session, as `Findings.position`.
    event: its name; "<short>" if the session is flagged for its length,
      "<empty>" if no event is scored.
    before, after: the events around it.
    surprising: the names of the session's surprising events.
  """

  reason: str
  position: int
  event: str
  before: list[str]
  after: list[str]
  surprising: frozenset[str]

  @property
  def events(self) -> list[str]:
    """The event that decides, and those around it."""
    return [*self.before, self.event, *self.after]


class Findings(NamedTuple):
  """The scores of sessions and the decision; equal sessions are scored once.

  Attributes:
    sessions: all examined sessions, whose names have masks.
    distinct: the distinct sessions among them.
    names: vocabulary of the events.
    masks: of events as they were read.
    scored: scores of the distinct sessions and of their events.
    decision: on the distinct sessions and on their events.
    worst_J: position of the event that decides on each session: the unusual
      value or time that is the reason, or else as `worst_positions`.
    words: the reasons of flagged sessions that are a value or a time.
  """

  sessions: Sessions
  distinct: Distinct
  names: Vocabulary
  masks: Redaction
  scored: SessionScores
  decision: Decision
  worst_J: np.ndarray
  words: dict[int, str] = {}

  def reason(self, j: int) -> str:
    """Why session j is flagged, in words; empty: it is not."""
    score = self.decision.reasons[self.distinct.which[j]]
    return self.words.get(j) or in_words(score)

  @property
  def severity_counts(self) -> list[int]:
    """The number of sessions of each of `SEVERITIES`."""
    severity_J = self.decision.severity[self.distinct.which]
    return np.bincount(severity_J, minlength=len(SEVERITIES)).tolist()

  def most_anomalous(self) -> np.ndarray:
    """The distinct sessions by falling score; short sessions come last."""
    scores = self.decision.scores[COMBINED]
    return np.lexsort((-scores, self.scored.short))

  def first_alarm(self, d: int) -> int | None:
    """The position of the first flagged event of a session, if there is one."""
    flagged = np.flatnonzero(self.decision.event_flags[self.scored.events(d)])
    return self.scored.offset(d) + int(flagged[0]) if len(flagged) else None

  def position(self, j: int) -> int:
    """The position of the event that decides on session j.

    It is the last event where the end of the session decides, and -1 in a
    session without events.
    """
    length = self.scored.lengths[self.distinct.which[j]]
    return int(min(self.worst_J[j], length - 1))

  def explain(self, j: int) -> Explanation:
    """Why session j is flagged, if it is, and the event that decides."""
    d, scored = int(self.distinct.which[j]), self.scored
    short, nll = scored.short[d], scored.nll[scored.events(d)]
    event, names, worst, offset = "<empty>", [], 0, scored.offset(d)
    surprising: list[str] = []
    if len(nll):
      names = self._event_names(j, d)
      worst = min(max(int(self.worst_J[j]) - offset, 0), len(nll) - 1)
      event = names[worst]
      high = np.flatnonzero(nll >= _SURPRISING * nll.max()).tolist()
      surprising = [names[n] for n in high]
    event = "<short>" if short else event
    if short or not len(nll) or j in self.words:
      surprising = [event]
    return Explanation(
      self.reason(j),
      self.position(j),
      event,
      before=names[max(worst - _BEFORE, 0) : worst],
      after=names[worst + 1 : worst + 1 + _AFTER],
      surprising=frozenset(surprising),
    )

  def _event_names(self, j: int, d: int) -> list[str]:
    """Names of the events of session j, which equals d, for display.

    An event that no model has seen has "? " before it, and is as in the file if
    the vocabulary lacks it.
    """
    first, events = self.scored.offset(d), self.scored.events(d)
    names = self.names.names(targets := self.scored.targets[events])
    for n in np.flatnonzero(self.scored.rank[events] == UNRANKED).tolist():
      read = self.as_read(j, first + n) if targets[n] == UNKNOWN else None
      names[n] = f"? {read or names[n]}"
    return names

  def as_read(self, j: int, position: int) -> str | None:
    """The event at a position of session j, as in the file, if known."""
    symbol = self._of_event(self.sessions.as_read, j, position)
    return None if symbol is None else self.masks.text(str(symbol))

  @property
  def places(self) -> dict[str, np.ndarray | Texts]:
    """File, line and timestamp of all events, as far as the input has these."""
    sessions = self.sessions
    columns = {
      "file": sessions.files,
      "line": sessions.lines,
      "timestamp": sessions.timestamps,
    }
    return {name: x for name, x in columns.items() if x is not None}

  def place(self, j: int, position: int) -> Place:
    """The `places` of an event of session j; None for the session's end."""
    return {
      name: self._of_event(values, j, position)
      for name, values in self.places.items()
    }

  def _of_event(
    self, values: np.ndarray | Texts | None, j: int, position: int
  ) -> str | int | None:
    """The value of an event of session j; None: there is none."""
    start, stop = self.sessions.bounds[j : j + 2].tolist()
    if values is None or not 0 <= position < stop - start:
      return None
    value = values[start + position]
    return value if isinstance(value, str) else int(value)


def find_anomalies(
  detector: Detector, normal: NormalScores, sessions: Sessions
) -> Findings:
  """Scores sessions and flags the anomalous ones."""
  settings, sessions = detector.config.detect, detector.with_unusual(sessions)
  distinct = sessions.distinct()
  bare = sessions.bare()._replace(unusual=sessions.unusual)
  scored = detector.score(bare.take(distinct.first), distinct.counts)
  masks = Redaction(settings.redact)
  names = [masks.name(name) for name in sessions.names]
  sessions = sessions._replace(names=names)
  decision = decide(scored, normal, settings)
  worst_J, words = worst_positions(scored)[distinct.which], {}
  for measure in detector.measures:
    of_measure = [reason == measure for reason in decision.reasons]
    which = np.flatnonzero(np.array(of_measure)[distinct.which])
    if not len(which):  # The sessions may lack values and times.
      continue
    some = sessions.take(which)
    for tails in detector.tails[::-1]:  # The first one for which it is unusual.
      unusual = most_unusual(some, tails, measure)
      for n in np.flatnonzero(unusual.scores).tolist():
        j = int(which[n])
        worst_J[j] = unusual.positions[n]
        words[j] = masks.text(unusual.words(n, measure))
  return Findings(
    *(sessions, distinct, detector.names, masks, scored, decision),
    *(worst_J, words),
  )


def higher_rate(
  findings: Findings, normal: NormalScores, settings: Config
) -> list[str]:
  """A line if `detect.rate` is below the share of anomalous normal sessions.

  Those are meant whose combined score is above the logarithm of the number of
  sessions, as that of flagged ones is: one in as many has it by chance, but for
  heavy tails. They set a threshold above sessions that are like them.
  """
  calibration, rate = normal.scores[COMBINED], settings.rate
  scores = normal.combined(normal.sessions, True)
  count = int(normal.sessions.counts[scores > math.log(calibration.n)].sum())
  if settings.rule != "rate" or count <= rate * calibration.n:
    return []
  higher = math.ceil(1000 * (count + 1) / (calibration.n + 1)) / 1000
  decision, which = findings.decision, findings.distinct.which
  now = calibration.flags(decision.scores[COMBINED], higher)[which].sum()
  return [
    f"calibration: {count:,} of {calibration.n:,} sessions look like flagged"
    " ones, with scores far above the others. If they are anomalous, more like"
    f" them are below detect.rate={rate:g}: --config.detect.rate={higher:g}"
    f" flags {now:,} sessions, not {decision.flags[which].sum():,};"
    " --mode=review asks about them"
  ]


def worst_positions(scored: SessionScores) -> np.ndarray:
  """The position of the most surprising event of each session [D].

  It is the number of events where the end of the session is the most
  surprising, and 0 where no event is scored.
  """
  worst_D = np.zeros(len(scored.lengths), np.int64)
  for d in np.flatnonzero(np.diff(scored.bounds)).tolist():
    nll = scored.nll[scored.events(d)]
    worst_D[d] = scored.offset(d) + int(nll.argmax())
  return worst_D


class Incident(NamedTuple):
  """Flagged sessions with like surprising events.

  Attributes:
    event: the most surprising one of the example.
    surprising: the names of the surprising events of the example.
    members: the distinct sessions. The first is the example: of those of the
      highest severity, the one with the highest score.
  """

  event: str
  surprising: frozenset[str]
  members: list[int]


Incidents = Sequence[Incident]


def group_incidents(findings: Findings) -> list[Incident]:
  """The incidents by falling severity, rising p and falling count.

  A session belongs to the first incident whose example has at least half of
  all their surprising events, and its own most surprising one, in common with
  it.
  """
  decision, order = findings.decision, findings.most_anomalous()
  order = order[np.argsort(-decision.severity[order], kind="stable")]
  incidents: list[Incident] = []
  for d in order[decision.flags[order]].tolist():
    why = findings.explain(int(findings.distinct.first[d]))
    for one in incidents:
      if belongs_to_incident(why.surprising, one.event, one.surprising):
        one.members.append(d)
        break
    else:
      incidents.append(Incident(why.event, why.surprising, [d]))

  def rank(one: Incident) -> tuple[int, float, int]:
    d, count = one.members[0], findings.distinct.counts[one.members].sum()
    p = np.nan_to_num(decision.p[d], nan=1)
    return -int(decision.severity[d]), float(p), -int(count)

  return sorted(incidents, key=rank)


def belongs_to_incident(
  surprising: frozenset[str], event: str, first: frozenset[str]
) -> bool:
  """Whether a session belongs to an incident.

  Args:
    surprising: the names of the session's surprising events.
    event: the most surprising event of the incident's example.
    first: the names of the surprising events of the example.
  """
  common = len(surprising & first) >= _COMMON * len(surprising | first)
  return common and event in surprising
