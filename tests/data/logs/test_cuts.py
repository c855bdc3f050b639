"""Sessions that the begin or the end of a log cuts."""

import functools
import itertools
import math
import random
from datetime import UTC, datetime

import numpy as np

from seqrnn.data import splits
from seqrnn.data.logs import cuts, sessions
from seqrnn.data.logs.cuts import Clock
from seqrnn.data.read.columns import Texts
from seqrnn.experiments import language_model
from tests.data.logs.test_logs import settings

BY_SESSION = {"log_session": "(s[0-9]+)", "log_header": "<Time> <Content>"}


def log(events):
  """Lines of times in seconds, sessions and events."""
  began = datetime(2026, 11, 27, tzinfo=UTC).timestamp()
  return "\n".join(
    f"{began + time:.3f} {event} {session}" for time, session, event in events
  )


def parts(config, name="train", idle=None):
  """Whether each session begins, and ends, by its name."""
  pieces = splits.reader(config, idle)(name)
  names = [pieces.corpus.names[int(j)] for j in pieces.document]
  both = zip(pieces.begins.tolist(), pieces.ends.tolist(), strict=True)
  return dict(zip(names, both, strict=True))


def two_kinds(count=300, step=10):
  """A session is open, work, work, close: the last work after 500 seconds.

  The log begins and ends amid sessions.
  """
  events = []
  for j in range(count):
    start = step * j
    for after, event in (
      (0, "open"), (1, "work"), (500, "work"), (501, "close"), (504, "close"),
    ):  # fmt: skip
      events.append((start + after, f"s{j}", event))
  return sorted(e for e in events if 600 <= e[0] <= step * count)


def test_sessions_amid_which_a_log_begins_or_ends_are_cut(tmp_path, capsys):
  events = two_kinds()
  whole = {"validation_fraction": 0, "test_fraction": 0}
  config = settings(tmp_path, log(events), **BY_SESSION, **whole)
  drawn = parts(config)
  events_of = {
    name: [(time, event) for time, of, event in events if of == name]
    for name in drawn
  }
  for name, (begins, ends) in drawn.items():
    assert begins == (events_of[name][0][1] == "open"), events_of[name]
    assert ends == (events_of[name][-1][1] == "close"), events_of[name]
  parts(config)
  assert capsys.readouterr().err == (
    "a.log: of 290 sessions, 50 open at its end, 50 cut at its begin"
    " (idle time: 499 seconds)\n"
  )
  config.detect.idle = 1.0  # A field of detection changes no training data.
  assert parts(config) == drawn
  assert set(parts(config, idle=0.0).values()) == {(True, True)}
  for name, (begins, ends) in parts(config, idle=20.0).items():
    first, last = events_of[name][0], events_of[name][-1]
    assert begins == (first[1] == "open" or first[0] >= events[0][0] + 20)
    assert ends == (last[0] + 20 <= events[-1][0])


def idle_times(silences, ends, longest, unknown):
  """The idle time beside each symbol, by trying each silence that occurs."""
  drawn = []
  for symbol in range(len(SCALES)):
    gaps = [gap for beside, gap in silences if beside == symbol]
    ended = ends.count(symbol)
    idle = min(
      silence
      for silence in [0, *gaps]
      if sum(gap > silence for gap in gaps) <= ended
    )
    is_rare = len(gaps) + ended < 20
    drawn.append(unknown if is_rare else min(idle, longest))
  return drawn


SCALES = (1, 10, 100, 1000, 9, 5000)  # Of the silence after each symbol.
SHARES = (50, 50, 50, 50, 1)  # Of all symbols but the last one.


def test_times_of_a_log_decide(monkeypatch):
  monkeypatch.setattr(cuts, "_CHUNK", 40)
  monkeypatch.setattr(cuts, "_SURE", 7)
  monkeypatch.setattr(cuts, "_PATIENCE", 3)
  rng = random.Random(40)
  drawn = []
  for n in range(402):
    now = rng.randint(10**9, 10**9 + 5000)
    drawn.append([])
    is_last = n >= 400  # Two sessions of long silences.
    while not drawn[-1] or rng.random() < (0.96 if is_last else 0.8):
      [symbol] = [5] if is_last else rng.choices(range(5), SHARES)
      drawn[-1].append((now, symbol))
      now += rng.randrange(SCALES[symbol])
  clock = Clock("a.log")
  for time, _ in sum(drawn, []):
    clock.read(1, time)
  bounds = np.cumsum([0, *map(len, drawn)])
  ids = np.array([symbol for _, symbol in sum(drawn, [])])
  times = np.array([float(time) for time, _ in sum(drawn, [])])
  symbols = [*"abcdef"]
  learned = clock.cuts(times, ids, Texts(symbols, ids), bounds)
  pairs = [list(itertools.pairwise(session)) for session in drawn]
  longest = sorted(max(b[0] - a[0] for a, b in some) for some in pairs if some)
  idle = longest[math.ceil(0.99 * (len(longest) - 1))]
  begin = min(session[0][0] for session in drawn)
  end = max(session[-1][0] for session in drawn)
  before = [session[0][0] - begin for session in drawn]
  after = [end - session[-1][0] for session in drawn]
  assert learned.idle.longest == idle
  assert learned.before_D.tolist() == before
  assert learned.after_D.tolist() == after
  pairs = sum(pairs, [])
  after_symbol = [(a[1], b[0] - a[0]) for a, b in pairs]
  ends = [s[-1][1] for s, t in zip(drawn, after, strict=True) if t >= idle]
  last_V = idle_times(after_symbol, ends, idle, idle)
  patience = min(3 * idle, 2 * longest[-1])
  assert learned.patience.longest == patience > idle
  some = [n for n in range(len(SCALES)) for _ in range(ends.count(n) // 7)]
  expected = idle_times(after_symbol, some, patience / 2, patience / 2)
  expected = [2 * silence for silence in expected]
  assert [*map(learned.patience.after, symbols)] == expected
  assert len(set(expected)) > 3
  first_V = idle_times(
    [(b[1], b[0] - a[0]) for a, b in pairs],
    [s[0][1] for s, t in zip(drawn, before, strict=True) if t >= idle],
    *(idle, 0),
  )
  assert [*map(learned.idle.after, symbols)] == last_V
  assert [*map(learned.idle.before, symbols)] == first_V
  assert len(set(last_V)) > 4 and len(set(first_V)) > 2
  expected = [t >= last_V[s[-1][1]] for s, t in zip(drawn, after, strict=True)]
  assert learned.ended.tolist() == expected
  expected = [t >= first_V[s[0][1]] for s, t in zip(drawn, before, strict=True)]
  assert learned.begun.tolist() == expected


def test_every_way_of_cutting_a_log_has_its_rule(tmp_path):
  times = {1: "s1", 2: "s2", 4: "s1", 20: "s3", 21: "s1"}
  content = log([(time, name, "event") for time, name in times.items()])
  whole = {"validation_fraction": 0, "test_fraction": 0, "split": "documents"}
  for cut, expected in (
    ("lines=2", {"a.log:1": True, "a.log:3": True, "a.log:5": False}),
    ("lines=4", {"a.log:1": True, "a.log:5": False}),
    ("gap=5", {"a.log:1": True, "a.log:4": False}),
    (None, {"a.log": True}),  # A file is a session.
    ("(s[0-9])", {"s1": False, "s2": True, "s3": False}),
  ):
    fields = {**BY_SESSION, **whole, "log_session": cut}
    drawn = parts(settings(tmp_path, content, **fields))
    assert {name: ends for name, (_, ends) in drawn.items()} == expected


def test_another_log_is_read_as_the_log_of_training(tmp_path):
  events = two_kinds()
  whole = {"validation_fraction": 0, "test_fraction": 0}
  config = settings(tmp_path, log(events), **BY_SESSION, **whole)
  trained = splits.reader(config)("train").corpus
  [names] = language_model.prepare(config).values()
  names = sessions.event_vocabulary(names, "")
  # The end of it, from which nothing could be learned: a session a line.
  few = {f"s{j}": word for j, word in enumerate(["open", "work", "close"])}
  path = tmp_path / "new.log"
  path.write_text(log([(9, name, word) for name, word in few.items()]))
  read = functools.partial(sessions.read_sessions, config, names, str(path))
  drawn = read(trained=trained)
  assert drawn.begins.tolist() == [True, False, False]
  assert drawn.ends.tolist() == [False, False, False]
  assert read().ends.tolist() == read().begins.tolist() == [True] * 3
