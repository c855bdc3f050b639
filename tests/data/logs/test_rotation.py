"""Rotated logs: which files are of one log, and sessions that go on in them."""

import random

import pytest

from seqrnn.data.logs import rotation, sessions
from seqrnn.data.vocabulary import Vocabulary
from tests.data.logs.test_logs import read, settings

# The names that programs give the files of one log, the oldest first.
ROTATED = [
  ["a.log.10.gz", "a.log.2.zst", "a.log.1", "a.log"],
  ["a-20251231.log.xz", "a-20260101.log", "a.log"],
  ["a.log.2025-12-31", "a.log.2026-01-01", "a.log"],
  ["h/a_20251231T235959.log", "h/a.2026-01-01.1.log.gz", "h/a.log"],
  ["a.log-20260101.2", "a.log-20260101.1", "a.log"],
]
APART = ["a1.log", "a2.log", "a-1.log", "a-2.log", "b/a.log", "c/a.log"]
APART += ["host-10.0.0.1", "host-10.0.0.2", "v1.2.3.4", "v1.2.3.5"]


def test_files_of_a_log_are_known_by_their_names():
  for names in ROTATED:
    [log] = set(rotation.log_names(names))
    assert log == names[-1] == rotation.log_names([*names, "b.log"])[0]
    mixed = random.Random(0).sample(names, len(names))
    assert sorted(mixed, key=rotation.age) == names
    # Alone, a file is a log of its own.
    assert rotation.log_names([names[0], *APART]) == [names[0], *APART]


def test_a_file_that_grows_is_listed_at_once(tmp_path, monkeypatch):
  lists = [[rotation.LogFile(tmp_path, 1, n, 0, False)] for n in (8, 7)]
  monkeypatch.setattr(rotation, "_listed", lambda _: lists.pop())
  assert rotation.list_files(tmp_path)[0].size == 8


@pytest.mark.parametrize(
  ("timed", "fields"), [(False, {}), (True, {}), (True, {"log_format": "time"})]
)
def test_a_session_goes_on_in_the_next_file(tmp_path, timed, fields):
  time = "2026-11-25 12:00:0{} " if timed else ""
  texts = ["x1 a\nx2 a\n", "x1 b\n", "x3 c\nx1 d\n"]
  texts = [
    "".join(f"{time.format(n)}{line}\n" for line in text.splitlines())
    for n, text in enumerate(texts)
  ]
  # With times, the newest may have the highest number.
  names = ["a.log", "a.log.1", "a.log.2"][:: 1 if timed else -1]
  files = dict(zip(names, texts, strict=True))
  config = settings(tmp_path, files, log_session=r"x(\d)", **fields)
  results, places = read(config), [("1", [1, 1, 2]), ("2", [2]), ("3", [1])]
  assert [(name, lines) for name, _, lines in results] == places
  assert [symbols[-1][-1] for _, symbols, _ in results] == ["d", "a", "c"]
  known = sessions.event_vocabulary(Vocabulary("log", ("a",)), "")
  of_log = sessions.read_sessions(config, known, config.data.path)
  assert list(of_log.files) == [*names, names[0], names[2]]
  # Sessions that are files, or parts of them, end with their files.
  config = settings(tmp_path, {}, log_session="lines=5")
  assert len(read(config)) == 3
