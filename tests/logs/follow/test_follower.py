"""Followed sessions: the verdicts of a detection, whatever the interleaving."""

import functools
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data.idle_times import IdleTimes
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.logs.templates import PLACES
from seqrnn.data.logs.values import MEASURES, fit
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import BEGIN, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import shapes
from seqrnn.logs.detect import detector as detector_lib
from seqrnn.logs.detect.conformal import Calibration, CrossCalibration
from seqrnn.logs.detect.deployed import Deployed, refuse_unfollowed
from seqrnn.logs.detect.detector import Detector, Ensemble, whole_sessions
from seqrnn.logs.detect.findings import find_anomalies
from seqrnn.logs.detect.normal import NormalSessions, of_every
from seqrnn.logs.detect.scores import BASELINES, STANDARD, baselines, learn
from seqrnn.logs.follow import alarms, novel, stepping
from seqrnn.logs.follow.follower import Event, Follower
from seqrnn.logs.follow.open_sessions import OpenSession
from tests.conftest import tiny

SYMBOLS = Vocabulary("session", tuple("abcdefg"))
DECISIVE = ("unknown", "max", "top_mean")
SECONDS = IdleTimes("seconds", 50.0, {"b": 5.0}, {"a": 0.0, "c": 20.0})
GAP = {"task": "gap_model", "model.heads": "all", "model.cell": "gru"}
GAP |= {"data.window": 4, "detect.short": "flag"}
DAY = 86400.0


def sessions_of(texts, ends=None, begins=None):
  """Sessions of texts, whose symbols are letters."""
  events = [symbol for text in texts for symbol in text]
  every = [True] * len(texts)
  return Sessions(
    SYMBOLS.encode(events),
    np.cumsum([0, *map(len, texts)]),
    [f"s{n}" for n in range(len(texts))],
    as_read=Texts(events, np.arange(len(events))),
    begins=np.array(begins or every),
    ends=np.array(ends or every),
  )


def p_of(model, *sessions):
  """The p-values of sessions by a detection."""
  results = find_anomalies(model.detector, model.normal, sessions_of(*sessions))
  return results.decision.p[results.distinct.which].tolist()


def config_of(fields):
  fields = {"data.unit": "session", "data.path": "-", **fields}
  return tiny(Path(), {"data.window": 40, **fields})


@functools.cache
def random_models(fields):
  """A task and two random models, which are compiled once."""
  vocabularies = {"symbols": SYMBOLS}
  config = whole_sessions(config_of(dict(fields)), vocabularies)
  experiment = experiments.build(config, vocabularies)
  rng = np.random.default_rng(1)

  def draw(leaf):
    values = rng.normal(size=(2, *leaf.shape)).astype(leaf.dtype)
    if leaf.shape == (len(SYMBOLS),):  # The bias of the predictions.
      values[:, UNKNOWN] = -20  # Training never has the unknown event.
    return values

  params = jax.tree.map(draw, shapes(experiment))
  seen = np.ones((2, len(SYMBOLS)), bool)
  seen[1, -1] = False  # The second model has not seen the last event.
  return experiment, Ensemble(params, seen)


def make(fields=None, names=STANDARD, is_timed=False):
  """A detector of random models, calibrated on its own random sessions."""
  fields = fields or {}
  of_models = {k: v for k, v in fields.items() if not k.startswith("detect.")}
  experiment, models = random_models(tuple(of_models.items()))
  rng = np.random.default_rng(1)
  train, normal = (
    sessions_of(random_texts(rng, 200, "abcdef")) for _ in range(2)
  )
  learned = [learn(train, names)] * 2
  fitted = [baselines(x, {*BASELINES} & {*names}) for x in learned]
  detector = Detector(config_of(fields), experiment, [], [1, 2], models, fitted)
  detector = detector._replace(learned=learned)
  if is_timed:
    tails = [fit(timed(rng, train)) for _ in range(2)]
    detector = detector._replace(tails=tails, measures=MEASURES)
    normal = detector.with_unusual(timed(rng, normal))
    names = *names, *MEASURES
  scored = detector.score(normal, np.ones(200, np.int64))
  every = NormalSessions(
    {name: x.ravel() for name, x in scored.scores.items()},
    counts=np.ones(400, int),
    model=np.repeat([0, 1], 200),
    sizes=np.tile(np.diff(scored.bounds), 2),
    unknown=np.zeros(400, bool),
    nll=scored.member_nll.ravel(),
    event_counts=np.ones(scored.member_nll.size, int),
    order=np.arange(400),
    steps=np.array(detector.steps),
    left=np.zeros(400, bool),
  )
  normal = of_every(every, names)
  return Deployed(detector.config, detector, normal, SECONDS)


@pytest.fixture(scope="module")
def model():
  return make()


def random_texts(rng, count, letters="abcdefg?"):
  return [
    "".join(rng.choice(list(letters), rng.integers(1, 16)))
    for _ in range(count)
  ]


def timed(rng, sessions, large=(), slow=()):
  """The sessions with values and times, large ones in some sessions."""
  n, sizes = len(sessions.ids), np.diff(sessions.bounds)
  scale = lambda some: np.where(np.isin(np.arange(len(sizes)), some), 30, 1)
  values = np.full((n, PLACES), np.nan, np.float32)
  values[:, 0] = rng.exponential(5, n) * np.repeat(scale(large), sizes)
  values[rng.random(n) < 0.02, 0] = np.nan
  gaps = rng.exponential(2, n) * np.repeat(scale(slow), sizes)
  seconds = 1e9 + np.cumsum(gaps)
  return sessions._replace(seconds=seconds, values=values)


def interleaved(rng, texts):
  """The events of texts in random order, and the end of each."""
  rows = [[Event(f"s{n}", symbol) for symbol in text] for n, text in texts]
  for n, row in zip(dict(texts), rows, strict=True):
    row.append(Event(f"s{n}", None))
  order = rng.permutation(np.repeat(np.arange(len(rows)), [*map(len, rows)]))
  left = [iter(row) for row in rows]
  return [
    event._replace(line=line)
    for line, event in enumerate((next(left[n]) for n in order), 1)
  ]


def fed(follower, events, rng):
  """The verdicts on events that come in random portions."""
  results, place = [], 0
  while place < len(events):
    stop = place + int(rng.choice([1, 2, 7, 100]))
    results += follower.feed_many(events[place:stop]).verdicts
    place = stop
  return results


def plain(verdict):
  """A verdict that can be compared: NaN equals itself."""
  return [None if x != x else x for x in verdict]


class Table:
  """What a database has of a follower or its alarms."""

  def __init__(self):
    self._rows = {}

  def move(self, before, after):
    """Stores the changes of a part, and restores another one from them."""
    for _, key, part, value in before.changes():
      if value is None:
        self._rows = {k: x for k, x in self._rows.items() if k[0] != key}
      else:
        self._rows[key, part] = json.dumps(value)
    rows = [(*row, json.loads(x)) for row, x in sorted(self._rows.items())]
    after.restore(json.loads(json.dumps(before.facts())), rows)


@pytest.mark.parametrize(
  "fields",
  [
    {"detect.scores": ",".join(DECISIVE)},
    {"detect.rule": "events"},
    {"detect.rule": "topk", "detect.top_k": 9},
    {**GAP, "detect.rate": 0.1},
  ],
)
def test_final_verdicts_are_those_of_a_detection(fields):
  decisive = "detect.scores" in fields
  fields = {"detect.rate": 0.05, **fields}
  model = make(fields, DECISIVE if decisive else STANDARD)
  rng = np.random.default_rng(0)
  texts = random_texts(rng, 30) + random_texts(rng, 30, "abcde")
  results = find_anomalies(model.detector, model.normal, sessions_of(texts))
  events = interleaved(rng, list(enumerate(texts)))
  verdicts = fed(Follower(model), events, rng)
  final = {verdict.session: verdict for verdict in verdicts if verdict.ended}
  assert 0 < results.decision.flags.sum() < len(results.decision.flags)
  for j, d in enumerate(results.distinct.which.tolist()):
    verdict = final[f"s{j}"]
    why = results.explain(j)
    lines = [event.line for event in events if event.session == f"s{j}"]
    np.testing.assert_array_equal(verdict.p, results.decision.p[d])
    assert verdict._asdict().items() >= why._asdict().items()
    assert [*verdict[2:4], *verdict[6:8], *verdict[11:14], verdict.flag] == [
      results.decision.severity[d],
      results.decision.reasons[d],
      lines[why.position],
      None,
      len(texts[j]),
      results.decision.unknown_events[d],
      results.decision.flagged_events[d],
      results.decision.flags[d],
    ]
    assert verdict.scores_K == tuple(results.decision.combined_KD[:, d])
  # A running verdict is below the final one, and comes before it.
  running = [verdict for verdict in verdicts if not verdict.ended]
  assert running or not decisive
  for verdict in running:
    last = final[verdict.session]
    assert last.flag and verdict.severity <= last.severity
    assert verdict.p >= last.p or math.isnan(last.p)
    assert verdict.events <= last.events
    known = texts[int(verdict.session[1:])][: verdict.events]
    assert verdict.unknown_events == known.count("?")
  again = fed(Follower(model), events, np.random.default_rng(7))
  assert list(map(plain, again)) == list(map(plain, verdicts))


def test_values_and_times_are_those_of_a_detection():
  """Also after a kill, which a state survives."""
  model = make({"detect.rate": 0.1}, is_timed=True)._replace(idle=IdleTimes())
  rng = np.random.default_rng(0)
  texts = random_texts(rng, 120, "abcdef")
  sessions = timed(
    rng, sessions_of(texts), range(0, 120, 20), range(10, 120, 20)
  )
  results = find_anomalies(model.detector, model.normal, sessions)
  bare = sessions._replace(seconds=None, values=None)  # As in a review.
  assert not find_anomalies(model.detector, model.normal, bare).words
  places = dict(zip(sessions.names, sessions.bounds.tolist(), strict=False))
  events = []
  for event in interleaved(rng, list(enumerate(texts))):
    if event.symbol is not None:
      place = places[event.session]
      places[event.session] += 1
      values = tuple(sessions.values[place].tolist())
      time = float(sessions.seconds[place])
      event = event._replace(time=time, values=values)
    events.append(event)
  first, second, half = Follower(model), Follower(model), len(events) // 2
  verdicts = fed(first, events[:half], rng)
  Table().move(first, second)
  verdicts += fed(second, events[half:], rng)
  final = {verdict.session: verdict for verdict in verdicts if verdict.ended}
  for j, d in enumerate(results.distinct.which.tolist()):
    verdict = final[f"s{j}"]
    why = results.explain(j)
    assert verdict.time == sessions.seconds[sessions.bounds[j] + why.position]
    assert verdict.p == results.decision.p[d]
    assert (verdict.reason, verdict.event) == (why.reason, why.event)
  reasons = " ".join(verdict.reason for verdict in final.values())
  assert "a silence of " in reasons and "a value of " in reasons
  # Sessions may also have neither.
  untimed = find_anomalies(model.detector, model.normal, sessions_of(texts))
  assert not untimed.words


def test_p_values_are_equal_also_at_the_edges_of_rounding():
  """Normal scores lie where a last digit decides on which side a score is."""
  model = make({"detect.rate": 0.1}, names=("max",))
  rng = np.random.default_rng(3)
  texts = random_texts(rng, 200, "abcdef")
  scored = model.detector.score(sessions_of(texts), np.ones(200, np.int64))
  highest = np.maximum.reduceat(scored.member_nll, scored.bounds[:-1], axis=1)
  # Sessions whose score is as near to an edge as float32 allows.
  away = np.abs((highest * 1e4) % 1 - 0.5)
  near = np.argsort(away.min(axis=0))[:40]
  edges = [Calibration(np.round(row[near], 4)) for row in highest]
  normal = model.normal._replace(
    scores={**model.normal.scores, "max": CrossCalibration(edges)}
  )
  combined = normal.evidence(scored.scores).max(axis=0)
  normal.scores["combined"] = CrossCalibration(
    [Calibration(row[near]) for row in combined]
  )
  model = model._replace(normal=normal)
  p = p_of(model, texts)
  for seed in range(2):
    rng = np.random.default_rng(seed)
    some = rng.permutation(200)[: rng.integers(50, 200)]
    events = interleaved(rng, [(int(n), texts[n]) for n in some])
    verdicts = fed(Follower(model), events, rng)
    final = {v.session: v.p for v in verdicts if v.ended}
    assert final == {f"s{n}": p[n] for n in some}
  assert len({p[n] for n in near}) > 10


def test_a_state_goes_on_as_if_nothing_had_stopped(monkeypatch):
  model = make({"detect.rate": 0.1}, DECISIVE)
  rng = np.random.default_rng(5)
  texts = random_texts(rng, 40)
  events = interleaved(rng, list(enumerate(texts)))
  events = [e._replace(time=100.0 + 3 * n) for n, e in enumerate(events)]
  expected = fed(Follower(model), events, rng)
  # Few states of models are kept: the others are computed again.
  monkeypatch.setattr("seqrnn.logs.follow.follower._STATES", 2000)
  follower, results, stored = Follower(model), [], Table()
  for place in range(0, len(events), 50):
    results += follower.feed_many(events[place : place + 50]).verdicts
    before, follower = follower, Follower(model)
    stored.move(before, follower)
  assert list(map(plain, results)) == list(map(plain, expected))
  assert any(not v.ended for v in results) and any(v.flag for v in results)


def test_the_next_model_judges_all_events_of_open_sessions(model):
  """As a detection by it does; ended ones were judged by the model before."""
  models = model, make({"detect.rate": 0.1}, ("max",))
  texts = random_texts(rng := np.random.default_rng(8), 40)
  events = interleaved(rng, [*enumerate(texts)])
  stored, final, after = Table(), {}, Follower(model)
  for place in range(0, len(events), 80):
    of = int(4 * place > 3 * len(events))
    before, after = after, Follower(models[of])
    stored.move(before, after)
    verdicts = after.feed_many(events[place : place + 80]).verdicts
    final |= {v.session: (of, v.p) for v in verdicts if v.ended}
  p = [p_of(one, texts) for one in models]
  assert all(x == p[of][int(name[1:])] for name, (of, x) in final.items())
  assert len(final) == 40 > sum(of for of, _ in final.values()) > 9


def test_a_new_event_of_many_sessions_is_one_alarm(monkeypatch):
  """Then sessions are judged without it, until a person calls it anomalous."""
  monkeypatch.setattr(novel, "MANY", 30)
  model = make({"detect.rate": 0.05})
  rng = np.random.default_rng(6)
  texts = [f"{text}?" for text in random_texts(rng, 100, "acde")]
  texts[50] = "??"  # Of which nothing is left.
  events = [
    event
    for n, text in enumerate(texts)
    for event in interleaved(rng, [(n, text)])
  ]
  # One host sends another new event in all of its sessions.
  one = [Event("host", "!"), Event("host", "a"), Event("host", None)]
  events = [e._replace(time=60.0) for e in (*one * 40, *events)]
  whole = Follower(model).feed_many(events)
  follower, results, stored = Follower(model), [], Table()
  for place in range(0, len(events), 97):
    results += follower.feed_many(events[place : place + 97]).verdicts
    before, follower = follower, Follower(model)
    stored.move(before, follower)
  assert list(map(plain, results)) == list(map(plain, whole.verdicts))
  [alarm] = [v for v in results if v.score == "new"]
  assert (alarm.session, alarm.event, alarm.symbols) == ("s29", "? ?", ["?"])
  assert (
    alarm.reason == "new since 1970-01-01T00:01:00, in 100% of the sessions"
  )
  assert alarm.severity == 2 and alarm.time == 60.0
  p = {v.session: v.p for v in results if v.ended}
  before = p_of(model, texts[:29])
  after = p_of(model, [text.replace("?", "") or "a" for text in texts])
  after[50] = 1.0
  assert [p[f"s{n}"] for n in range(100)] == [*before, *after[29:]]
  # Those of the session that is open are judged without the event, too.
  follower.feed_many([Event("t", symbol) for symbol in "a?b?"])
  [last] = follower.end("t")
  assert last.p == p_of(model, ["ab"])[0] and last.left_out == 2
  follower.leave_out(anomalous=frozenset("?"))
  follower.feed_many([Event("u", symbol) for symbol in "a?b?"])
  last = follower.end("u")[-1]
  assert last.p == p_of(model, ["a?b?"])[0] and last.unknown_events == 2


def test_a_new_event_counts_as_the_one_that_it_replaces(monkeypatch):
  """It has most of its words, and stands where the sessions lack it."""
  monkeypatch.setattr(novel, "MANY", 3)
  model = make({"detect.rate": 0.05})
  follower = Follower(model)
  for n in range(4):  # "c" stands in them, and "a" does not.
    follower.feed_many([Event(f"s{n}", x) for x in ("d", "a c 7", "c", "e")])
  [last] = follower.end("s3")
  assert last.p == p_of(model, ["dace"])[0] and last.left_out == 1
  known = ["pay sent", "pay sent to bank", "all done", ""]
  for text, expected in (
    ("pay sent to bank in eu", known[1]),
    ("pay is sent", known[0]),
    ("done", None),
  ):
    assert novel.replaced(text, known) == expected


def test_new_events_that_begin_together_are_one_alarm(monkeypatch):
  """Each is asked about in review.csv; one of an hour later is another."""
  monkeypatch.setattr(novel, "MANY", 9)
  follower = Follower(make({"detect.rate": 0.05}))
  alerts, rows = alarms.Alarms(3600, Redaction("(?!)")), []
  for n in range(40):
    text = "ab" + "!" * (n % 2) + "/" * (n % 3 == 0) + ";" * (n % 9 == 0)
    text, begin = text + "=" * (n > 25), 4000.0 * (n > 25) + n
    events = [Event(f"s{n}", symbol, begin) for symbol in text]
    for one in follower.feed_many(events).verdicts:
      rows += [row for row in [alerts.take(one)] if row and one.score == "new"]
  one, other = rows
  assert one["reason"] == (
    "2 new events since 1970-01-01T00:00:01, in up to 56% of the sessions"
  )
  assert other["event"] == "? =" and other["reason"].startswith("new since ")
  kinds = [k for k in alerts.kinds.values() if k.example["score"] == "new"]
  assert [kind.symbols for kind in kinds] == [["!"], ["/"], [";"], ["="]]
  [last] = follower.end("s30")
  assert last.left_out == 2 and last.p == p_of(follower.deployed, ["ab"])[0]


def ended(follower, *event):
  """The sessions that an event ends, with the number of their events."""
  return [(v.session, v.events) for v in follower.feed(*event) if v.ended]


def test_silence_in_event_time_ends_a_session_and_an_event_wakes_it(model):
  follower = Follower(model)
  assert ended(follower, "x", "c", 1000.0) == []  # 20 seconds after c.
  assert ended(follower, "y", "b", 1010.0) == []  # 50 after b.
  assert ended(follower, "y", "a", 1020.0) == []  # a ends it at once.
  assert ended(follower, "x", "c", 1020.0) == []
  assert ended(follower, "z", "b", 1020.5) == [("y", 2)]
  assert ended(follower, "z", "b", 1041.0) == [("x", 2)]
  # It is not cut in two until twice the longest idle time is over.
  assert ended(follower, "x", "b", 1069.0) == []
  assert ended(follower, "x", "a", 1070.0) == []
  assert [v.session for v in follower.tick(1071.0)] == ["x"]
  assert follower.open_sessions == 1
  assert ended(follower, "x", "c", 1170.5) == [("z", 2)]
  [last] = follower.end("x")
  assert (last.events, last.now) == (1, 1170.5)
  assert follower.end("x") == []
  [end] = follower.feed_many([Event("x", None), Event("", None)]).not_open
  assert end.session == "x"


def test_more_sessions_than_are_followed_end_open():
  model, results = make({"detect.followed": 2}), []
  follower = Follower(model)
  for word in ("xa", "yb", "xc", "zg", "yb", "xc"):
    results += [v for v in follower.feed(*word) if v.ended]
  # z drives out y, which came before x; y drives out x, and x drives out z.
  sizes = [(v.session, v.events) for v in results]
  assert sizes == [("y", 1), ("x", 2), ("z", 1)]
  batch = find_anomalies(
    model.detector, model.normal, sessions_of(["b", "ac", "g"], [False] * 3)
  )
  assert [v.p for v in results] == batch.decision.p[
    batch.distinct.which
  ].tolist()


def test_a_session_that_the_begin_of_the_log_cuts_is_read_so(model):
  follower = Follower(model)
  # Others may have been before b, which comes first.
  for name, event, time in (
    *(("x", "b", 100.0), ("x", "c", 101.0), ("y", "c", 102.0)),
    *(("z", "b", 106.0), ("u", "b", 100.5)),
  ):
    assert ended(follower, name, event, time) == []
  results = [v for name in "xyzu" for v in follower.end(name)]
  begins = [False, True, True, False]
  batch = p_of(model, ["bc", "c", "b", "b"], [True] * 4, begins)
  assert [v.p for v in results] == batch
  # Neither begin nor end, and one event: nothing is scored.
  follower = Follower(make({"detect.followed": 1}))
  assert follower.feed("x", "b", 100.0) == []
  [verdict] = follower.feed("y", "b", 101.0)
  [p] = p_of(model, ["b"], [False], [False])
  assert (verdict.p, verdict.event) == (p, "<empty>")


def test_one_wrong_time_ends_no_session(model):
  follower = Follower(model)
  feed = lambda time: [v.session for v in follower.feed("y", "b", time)]
  follower.feed("x", "c", 1000.0)
  for time in (1001.0, 9e9, 1002.0, 9e9, 9e9 + 1, 1003.0, 0.0, 1004.0):
    assert feed(time) == []
  assert follower.now == 1004.0
  # A true leap: the next events agree.
  assert feed(1000 + DAY) == feed(1001 + DAY) == []
  assert feed(1002 + DAY) == ["x"]


def test_without_times_lines_may_be_a_clock(model):
  follower = Follower(model._replace(idle=IdleTimes()))
  follower.feed("x", "a", 0.0)
  assert follower.feed("y", "a", 1e6) == follower.tick(2e6) == []
  follower = Follower(model._replace(idle=IdleTimes("lines", 3.0)))
  follower.feed("x", "b", line=1)
  # Several sessions in a line.
  many = [Event(name, "b", None, 2) for name in "uvwyz"]
  assert follower.feed_many(many).verdicts == []
  assert ended(follower, "y", "b", None, 4) == []
  assert ended(follower, "y", "b", None, 5) == [("x", 1)]
  others = [(name, 1) for name in "uvwz"]  # The log was rotated:
  assert ended(follower, "z", "b", None, 1) == others


def test_a_line_of_several_sessions_has_one_time(model):
  follower = Follower(model)
  follower.feed("x", "c", 1000.0, 1)
  wrong = [Event(name, "b", 1000 + DAY, 2) for name in "uvwyz"]
  assert follower.feed_many(wrong[:2]).verdicts == []
  Table().move(follower, follower)
  assert follower.feed_many(wrong[2:]).verdicts == []
  assert follower.now == 1000.0


def test_a_session_of_many_events_is_judged_in_parts(model, monkeypatch):
  monkeypatch.setattr("seqrnn.logs.follow.follower._LONGEST", 20)
  follower = Follower(model)
  verdicts = follower.feed_many([Event("x", "b")] * 50).verdicts
  assert [v.events for v in verdicts if v.ended] == [20, 20]
  assert follower.open_sessions == 1


def test_events_have_the_scores_of_whole_sessions(monkeypatch):
  model, rng = make(GAP), np.random.default_rng(0)
  decoder = model.detector.experiment.decoder
  stepper = stepping.Stepper(decoder, model.detector.models)
  texts = random_texts(rng, 70) + ["abcde" * 40]
  scored = model.detector.score(sessions_of(texts), np.ones(71, np.int64))
  # Also some at a time, and in batches of few rows.
  monkeypatch.setattr(detector_lib, "_EVENTS", 100)
  monkeypatch.setattr(detector_lib, "_LOGITS", 2**11)
  counts = rng.integers(1, 9, 71)
  parts = model.detector.score(sessions_of(texts), counts)
  np.testing.assert_allclose(parts.nll, scored.nll, 1e-4, 1e-4)
  np.testing.assert_array_equal(parts.targets, scored.targets)
  np.testing.assert_array_equal(parts.bounds, scored.bounds)
  np.testing.assert_array_equal(parts.counts, counts)
  for name, x in scored.scores.items():
    np.testing.assert_allclose(parts.scores[name], x, atol=1e-3)
  left = {j: [BEGIN, *SYMBOLS.encode(text)] for j, text in enumerate(texts)}
  states, nats = dict.fromkeys(left, stepper.begin_S), {j: [] for j in left}
  while left:  # Several sessions together.
    some = rng.permutation([*left])[: rng.integers(1, len(left) + 1)].tolist()
    rows = [(states[j], *left[j][:2]) for j in some]
    for j, (state_S, scores_3X) in zip(some, stepper.read(rows), strict=True):
      states[j] = state_S
      nats[j].append(scores_3X[0, 0])
    left = {j: ids[j in some :] for j, ids in left.items()}
    left = {j: ids for j, ids in left.items() if len(ids) > 1}
  for j, values in nats.items():
    nll = scored.nll[scored.events(j)][:-1]  # Without the end.
    np.testing.assert_allclose(values, nll, 1e-4, 1e-4)


def test_an_event_is_read_once_after_equal_ones(model, monkeypatch):
  """Unless there are too many to remember; the verdicts are the same."""
  verdicts, read = [], []
  events = [Event(name, symbol) for name in "xyz" for symbol in "ab?ba"]
  for most, count in ((2**25, 5), (0, 15)):
    monkeypatch.setattr("seqrnn.logs.follow.follower._SHARED", most)
    follower, rows = Follower(model), []
    compute = follower._stepper.read

    def note(some, rows=rows, compute=compute):
      rows += some
      return compute(some)

    monkeypatch.setattr(follower._stepper, "read", note)
    verdicts.append([follower.feed_many([x]).verdicts for x in events])
    read.append((len(rows), count))
  assert all(rows == count for rows, count in read), read
  assert repr(verdicts[0]) == repr(verdicts[1])
  assert any(verdicts[0])


def test_what_cannot_be_followed_is_refused():
  for fields, rule in (
    ({"task": "gap_model"}, "next event unless model.heads='all'"),
    ({"detect.rule": "bh"}, "detect.rule='bh': compares all sessions"),
  ):
    config = config_of(fields)
    experiment = experiments.build(config, {"symbols": SYMBOLS})
    detector = Detector(config, experiment, [], [], None, [])
    with pytest.raises(UserError, match=rule):
      refuse_unfollowed(Deployed(config, detector, None, IdleTimes()))
  # With n normal sessions no p-value is below 1 / (n + 1).
  model = make({"detect.rate": 0.1})
  n = model.normal.scores["combined"].n
  for rate, more in ((0.1, 0), (1 / (n + 1), 0), (1 / (n + 2), 1), (1e-9, 9)):
    model.config.detect.rate = rate
    later = model._replace(span=(0.0, n * DAY))
    if not more:
      Follower(later)
      continue
    with pytest.raises(UserError, match=f"rate=.* and has {n}; ") as caught:
      Follower(later)
    date = "1971-02-06" if more == 1 else "9999-12-31"
    assert f"; at the pace of this log there are enough at {date}" in str(
      caught.value
    )
  model.config.detect.rule = "events"
  Follower(model)


def test_a_kind_of_alarms_is_counted_and_not_repeated(model):
  follower, masks = Follower(model), Redaction("(?!)")
  taken = alarms.Alarms(60.0, masks)
  follower.feed_many([Event("x", symbol, 0.0) for symbol in "ab?cd"])
  [one] = [v for v in follower.end("x") if v.ended]
  one = one._replace(severity=1, now=0.0, earlier=0)
  row = taken.take(one)
  assert (row["number"], row["kind"], row["of_kind"]) == (1, 1, 1)
  assert row["event"] == "? ?" and row["before"][-1] == "b"
  assert row["after"] == ["c", "d"] and row["session"] == "x"
  assert taken.take(one._replace(now=59.0)) is None
  assert taken.take(one._replace(now=1.0, earlier=1)) is None
  assert taken.take(one._replace(severity=0)) is None
  again = taken.take(one._replace(now=61.0, session="y"))
  assert (again["number"], again["kind"], again["of_kind"]) == (2, 1, 3)
  # More severe ones are written at once, and others have their own kind.
  high = taken.take(one._replace(now=62.0, severity=3))
  assert (high["number"], high["of_kind"], high["severity"]) == (3, 4, "high")
  # Without its begin, a session seems anomalous if it has no unknown event.
  cut = one._replace(begins=False, now=9e9, unknown_events=0)
  assert taken.take(cut) is None
  other = one._replace(surprising=frozenset("q"), event="q", now=62.0)
  assert taken.take(other)["kind"] == 2
  stored = alarms.Alarms(60.0, masks)
  Table().move(taken, stored)
  assert stored.facts() == taken.facts() and stored.kinds == taken.kinds
  stored.answer({(1, "x"): "normal"})
  assert stored.take(one._replace(now=9e9, severity=3)) is None
  assert stored.kinds[1].count == 5
  # Without event time nothing is quiet.
  assert taken.take(other._replace(now=None)) is not None


def test_few_new_events_are_known():
  known, session = novel.NewEvents(), OpenSession("x")
  for n in range(2000):
    known.take(session, f"{n % 700}", None, 0.0)
  assert len(known.events) <= 501
