"""Changes of a log inside of its training period, and unseen times."""

import numpy as np

from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.logs import changes

# Ids of events after the four special ones of a vocabulary.
COMMON, RARE, NEW, OLD, NIGHT, TREND = range(4, 10)
NAMES = Vocabulary("events", ("common", "rare", "new", "old", "night", "trend"))


def log_of(rng, has_EJ, times_J=None):
  """Sessions that have the events of the rows of has_EJ, each once or twice."""
  events = [np.flatnonzero(has) + COMMON for has in has_EJ.T]
  events = [np.tile(rng.permutation(x), rng.integers(1, 3)) for x in events]
  bounds = np.append(0, np.cumsum([len(x) for x in events]))
  seconds = None
  if times_J is not None:
    seconds = np.repeat(times_J, np.diff(bounds)).astype(float)
  names = [str(j) for j in range(len(events))]
  ids = np.concatenate(events).astype(np.int32)
  return Sessions(ids, bounds, names, seconds=seconds)


def test_a_lasting_change_is_found_with_its_begin_and_its_shares():
  rng = np.random.default_rng(0)
  number, part = 2000, np.arange(2000) / 2000
  share_EJ = np.zeros((6, number))
  share_EJ[0] = 1
  share_EJ[1] = 0.05
  share_EJ[2] = np.where(part >= 0.8, 0.3, 0)  # A new version at 80 %,
  share_EJ[3] = np.where(part < 0.8, 0.3, 0)  # instead of the old one.
  share_EJ[4] = np.where((part * 4) % 1 > 0.8, 0.5, 0)  # Four nights.
  share_EJ[5] = 0.1 + 0.1 * (part > 0.5)  # Too small a step to be told.
  has_EJ = rng.random(share_EJ.shape) < share_EJ
  sessions = log_of(rng, has_EJ, np.arange(number) * 60)
  found = {one.event: one for one in changes.find_changes(sessions, NAMES, "")}
  assert found.keys() == {"new", "old"}
  first = int(np.flatnonzero(has_EJ[2])[0])
  new, old = found["new"], found["old"]
  assert (new.session, new.seconds, new.before) == (first, first * 60, 0)
  assert np.isclose(new.after, has_EJ[2, 1600:].mean())
  assert (old.session, old.after) == (1600, 0)
  blocks = has_EJ[2].reshape(40, 50).mean(axis=1)
  np.testing.assert_allclose(new.shares, blocks, atol=1e-4)
  lines = changes.change_lines([new, new, old], number)
  words = f"new and 1 other: new since {new.since}, in 28% of the sessions"
  assert words in lines[0] and len(lines) == 3
  assert "old: gone since 1970-01-02 02:40:00, in 0% of" in lines[1]
  assert "holds for sessions of which 20% are from after" in lines[-1]
  # The line with which it begins may lack a time.
  assert sessions.seconds is not None
  sessions.seconds[sessions.bounds[first]] = np.nan
  found = {one.event: one for one in changes.find_changes(sessions, NAMES, "")}
  assert found["new"].since == f"session {first + 1:,}"


def test_a_new_event_is_found_after_other_events_that_the_vocabulary_lacks():
  rng, number = np.random.default_rng(1), 2000
  has_EJ = np.ones((6, number), bool)
  has_EJ[1:] = False
  has_EJ[1, [90, 700, 1500]] = True  # Errors, a text each.
  has_EJ[2, 1860:] = rng.random(140) < 0.5  # A new version.
  sessions = log_of(rng, has_EJ)
  symbols, ids = ["common", "login password=x1", "x", "y", "z"], sessions.ids
  index = np.where(ids == COMMON, 0, 1)
  index[ids == RARE] = [2 + n % 3 for n in range((ids == RARE).sum())]
  unknown = np.where(ids == COMMON, COMMON, UNKNOWN)
  sessions = sessions._replace(ids=unknown, as_read=Texts(symbols, index))
  names = Vocabulary("events", ("common",))
  (one,) = changes.find_changes(sessions, names, "<secrets>")
  first = int(np.flatnonzero(has_EJ[2])[0])
  assert (one.session, one.before) == (first, 0)
  assert one.event.startswith("login password=") and "x1" not in one.event


def test_logs_without_a_change_have_none():
  found = []
  for seed in range(20):
    rng = np.random.default_rng(seed)
    share_E1 = np.append(1, rng.beta(0.5, 3, 5))[:, None]
    sessions = log_of(rng, rng.random((6, 1200)) < share_E1)
    found += changes.find_changes(sessions, NAMES, "")
  assert not found
  few = sessions.take(np.arange(40))
  assert not changes.find_changes(few, NAMES, "")
  assert not changes.change_lines([], 40)


def test_times_that_training_has_not_seen_are_named():
  rng, has_EJ = np.random.default_rng(0), np.ones((1, 200), bool)
  day, hour = 86400, 3600
  monday = 4 * day  # 1970-01-05.
  office = 8 * hour + np.linspace(0, 9.9 * hour, 200)
  training = log_of(rng, has_EJ, monday + office)
  same = log_of(rng, has_EJ, monday + day + office)
  assert not changes.unseen_times([training], same)
  late = np.where(np.arange(200) < 10, 23 * hour, office)
  late[:5] += np.arange(5) % 3 * hour
  later = log_of(rng, has_EJ, monday + day + late)
  (line,) = changes.unseen_times([training], later)
  assert "10 of 200 sessions begin from 23:00 to 02:00," in line
  saturday = log_of(rng, has_EJ, monday + 5 * day + office)
  (line,) = changes.unseen_times([training], saturday)
  assert "200 of 200 sessions begin on weekends," in line
  assert not changes.unseen_times([training], log_of(rng, has_EJ))
  assert not changes.unseen_times([training, later, saturday], later)
