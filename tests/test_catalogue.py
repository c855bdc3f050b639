"""The catalogue: sets are fetched once, verified, and read as they should be.

No test needs the network.
"""

import csv
import hashlib
import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pooch
import pytest

from docs import data_sets
from seqrnn import catalogue
from seqrnn.config import read as config_lib
from seqrnn.config.derived import merge
from seqrnn.configs import base
from seqrnn.data import splits
from seqrnn.data.logs.sessions import examined_sessions
from seqrnn.data.sources import corpora
from seqrnn.data.vocabulary import make
from seqrnn.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PATH = f"/owner/name/{COMMIT}/data/"
PLAY = b"First Citizen:\nSpeak, speak.\n"
QUESTIONS = "".join(f"{n % 6} What Is {n} \x85 \xe9 ?\n" for n in range(34))
NEWS = [
  ["3", 'Fears for "T N"', "Unions,\\say\u2028"],
  ["4", "Space", "A race"],
]


def news(rows) -> bytes:
  content = io.StringIO()
  csv.writer(content, quoting=csv.QUOTE_ALL).writerows(rows)
  return content.getvalue().encode()


def reviews(texts) -> bytes:
  content = io.BytesIO()
  with tarfile.open(fileobj=content, mode="w:gz") as archive:
    for name, text in texts.items():
      entry = tarfile.TarInfo(f"aclImdb/{name}")
      entry.size = len(text.encode())
      archive.addfile(entry, io.BytesIO(text.encode()))
  return content.getvalue()


REVIEWS = reviews(
  {
    "train/unsup/0_0.txt": "never read",
    "test/neg/0_1.txt": "Bad.",
    "train/pos/2_9.txt": "It's GOOD!",
    "train/neg/10_1.txt": "late",
    "train/neg/9_3.txt": "a<br />b\u2028c\td",
  }
)
SESSIONS = "".join(f"{n} {n} {n % 7}\n" for n in range(40)).encode()
# Of a set: the keys of its entry, and the content of its files by split.
SETS = {
  "play": ({}, {"all": PLAY}),
  "lines": (
    {"read": "utf-8", "lines": ["strip"]},
    {"train": b" a b \n c\n", "validation": b"x", "test": b" y \n"},
  ),
  "questions": (
    {
      "fields": {"format": "space", "unit": "word"},
      "read": "latin-1",
      "lines": ["lower"],
      "every": 10,
    },
    {"train": QUESTIONS.encode("latin-1"), "test": b"0 WHO ?\n"},
  ),
  "news": (
    {"fields": {"format": "tab"}, "read": "news", "lines": ["words"]},
    {"train": news(NEWS), "test": news(NEWS[:1])},
  ),
  "reviews": (
    {
      "page": "https://films.invalid",
      "fields": {"format": "tab"},
      "read": "reviews",
      "lines": ["words"],
    },
    {"train": REVIEWS, "test": REVIEWS},
  ),
  "sessions": (
    {"fields": {"unit": "session"}},
    {"train": SESSIONS, "test": b"1 1 1\n3 3 3\n", "anomalous": b"1 2\n9 9\n"},
  ),
}
FILE = {"reviews": "films.tar.gz"}


def entry(name):
  """A set as catalogue.toml has it."""
  keys, parts = SETS[name]
  known = {"what": name, "terms": "free", "cite": "Doe 1999"} | keys
  if "page" not in known:
    known |= {"repository": "owner/name", "commit": COMMIT}
  files = {
    split: [
      (
        FILE.get(name, f"data/{name}.{split}"),
        len(content),
        hashlib.sha256(content).hexdigest(),
      )
    ]
    for split, content in parts.items()
  }
  return known | {"files": files}


class Network:
  """Stands in for it.

  Attributes:
    content: of each path; a path that is missing is not found.
    cut: paths whose answer ends in the middle.
    requests: the paths that were asked for.
  """

  def __init__(self):
    self.content: dict[str, bytes] = {}
    self.cut: set[str] = set()
    self.requests: list[str] = []

  def download(self, url, output, _):
    path = url.removeprefix(catalogue.HOST)
    self.requests.append(path)
    if path not in self.content:
      raise OSError("wrapped") from OSError("404 Not Found")
    content = self.content[path]
    half = len(content) // 2 if path in self.cut else None
    Path(output).write_bytes(content[:half])


@pytest.fixture
def served(tmp_path, monkeypatch):
  """A catalogue of SETS on a network, and a cache of its own."""
  network = Network()
  for name, (_, parts) in SETS.items():
    for split, content in parts.items():
      network.content[f"{PATH}{name}.{split}"] = content
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  entries = {name: entry(name) for name in SETS}
  monkeypatch.setattr(catalogue.tomllib, "loads", lambda _: entries)
  monkeypatch.setattr(
    pooch.HTTPDownloader, "__call__", lambda _, *args: network.download(*args)
  )
  catalogue.sets.cache_clear()
  catalogue._announce.cache_clear()
  corpora._lines.cache_clear()
  yield network
  monkeypatch.undo()
  catalogue.sets.cache_clear()


def config_of(name: str, **fields):
  config = base.get_config()
  config.data.source = name
  for field, value in fields.items():
    config_lib.override(config, field, str(value))
  given = {"data.source", *fields}
  values = {n: v for n, v in config_lib.flat(config).items() if n in given}
  config = merge(config, values, given)
  config_lib.check(config)
  return config


def texts(config, split):
  pieces = splits.reader(config)(split)
  labels = pieces.corpus.labels
  return [
    (labels and labels[int(j)], document.symbols)
    for j, document in zip(pieces.document, pieces.documents(), strict=True)
  ]


def folder(tmp_path, name="play"):
  return tmp_path / "cache" / "seqrnn" / "sets" / name


def refused(reason, name="play"):
  with pytest.raises(UserError, match=reason) as error:
    corpora.read_corpus(config_of(name).data)
  message = str(error.value)
  assert "\n" not in message
  return message


def test_a_set_is_fetched_once_and_its_terms_are_printed(
  served, tmp_path, capfd
):
  pooch.get_logger().setLevel("INFO")  # As pooch has it.
  for _ in range(2):
    (document,) = splits.whole(
      corpora.read_corpus(config_of("play").data)
    ).documents()
    assert document[:2] == ("play.all", PLAY.decode())
  assert served.requests == [f"{PATH}play.all"]
  assert {p.name for p in folder(tmp_path).iterdir()} == {"lock", "play.all"}
  assert capfd.readouterr().err == (
    "data.source=play: fetching from owner/name; terms: free; cite Doe 1999\n"
  )


def test_a_file_that_is_not_the_published_one_is_not_kept(served, tmp_path):
  """Neither one of another content nor a part; a damaged one is replaced."""
  served.content[f"{PATH}play.all"] = b"other"
  refused("cannot be fetched .SHA256 hash of downloaded file")
  served.content[f"{PATH}play.all"] = PLAY
  served.cut.add(f"{PATH}play.all")
  refused("cannot be fetched")
  assert {path.name for path in folder(tmp_path).iterdir()} == {"lock"}
  served.cut.clear()
  (folder(tmp_path) / "play.all").write_bytes(PLAY[:-1])
  corpora.read_corpus(config_of("play").data)
  assert served.requests == [f"{PATH}play.all"] * 3
  assert (folder(tmp_path) / "play.all").read_bytes() == PLAY


def test_a_file_that_cannot_be_fetched_is_named(served, tmp_path):
  served.content.clear()
  message = refused("404", "lines")
  assert f"{catalogue.HOST}{PATH}lines.train cannot be fetched" in message
  place = folder(tmp_path, "lines") / "lines.train"
  assert message.endswith(f"get it on another machine and put it at {place}")


def test_a_set_that_the_user_must_get(served, tmp_path):
  place = folder(tmp_path, "reviews") / "films.tar.gz"
  message = refused("is missing", "reviews")
  assert message == (
    f"data.source='reviews': {place} is missing; it is not fetched, get it from"
    " https://films.invalid and put it there (terms: free)"
  )
  place.parent.mkdir(parents=True)
  place.write_bytes(REVIEWS[:-1])
  refused("is not the published file", "reviews")
  place.write_bytes(REVIEWS)
  config = config_of("reviews", **{"data.unit": "word"})
  corpus = corpora.read_corpus(config.data, "train")
  assert list(corpus.names) == [f"films.tar.gz:{n}" for n in (1, 2, 3)]
  assert list(corpus.labels) == ["0", "0", "1"]
  found = [corpus.text(*corpus.bounds[j : j + 2]) for j in range(3)]
  assert found == [["a", "b", "c", "d"], ["late"], ["it's", "good", "!"]]
  assert texts(config, "test") == [("0", ["bad", "."])]
  assert not served.requests


def test_lines_are_prepared_and_splits_are_those_of_the_set(served):
  lines = [
    (str(n % 6), f"what is {n} \x85 \xe9 ?".split(" ")) for n in range(34)
  ]
  # Only newlines end a line, not U+0085, which is white space.
  lines = [(label, [s for s in text if s != "\x85"]) for label, text in lines]
  tenth = [lines[9], lines[19], lines[29]]
  fears = [*["fears", "for"], *'"tn"', "unions", ",", "say"]
  word = {"data.unit": "word"}
  for name, fields, split, expected in (
    ("lines", {}, "train", [(None, "a b\nc\n")]),
    ("lines", {}, "validation", [(None, "x\n")]),
    ("lines", {}, "test", [(None, "y\n")]),
    ("questions", {}, "validation", tenth),
    ("questions", {}, "train", [x for x in lines if x not in tenth]),
    ("questions", {}, "test", [("0", ["who", "?"])]),
    ("news", word, "test", [("Business", fears)]),
    ("sessions", {}, "test", [(None, ["1"] * 3), (None, ["3"] * 3)]),
  ):
    assert texts(config_of(name, **fields), split) == expected, (name, split)
  # All of the file: the test split is another file.
  config = config_of("sessions", **{"data.validation_fraction": 0.2})
  train, validation = (texts(config, s) for s in ("train", "validation"))
  assert len(train) + len(validation) == 40 and 6 <= len(validation) <= 10
  assert served.requests


def test_a_detection_examines_the_anomalous_sessions_of_a_set(served):
  config = config_of("sessions")
  read = splits.reader(config)
  corpus = read("train").corpus
  counts = read("train").counts()
  names = make(corpus.symbols, counts, "session", 1, None)
  found = examined_sessions(config, names, read)
  assert found.labels is not None and found.labels.tolist() == [0, 0, 1, 1]
  assert np.diff(found.bounds).tolist() == [3, 3, 2, 2]
  assert len(served.requests) == 3


def test_a_flag_replaces_the_files_of_a_config():
  config = base.get_config()
  log = {"unit": "log", "log_header": "<Content>"}
  config.data.update({"source": "files", "path": "mine.txt", **log})
  overrides = {"data.source": "hdfs"}
  by_user = {*overrides, "data.path", *(f"data.{name}" for name in log)}
  data = merge(config, overrides, by_user).data
  assert (data.path, data.unit, data.log_header) == (None, "session", None)


def test_the_page_has_the_table_of_the_catalogue():
  """`python docs/data_sets.py` renews it."""
  text = data_sets.PAGE.read_text("utf-8")
  assert data_sets.table() in text
  assert data_sets.page(text) == text


def test_the_catalogue_is_sound():
  sets = catalogue.sets()
  assert len(sets) > 25
  for name, found in sets.items():
    assert re.fullmatch("[a-z0-9_]+", name)
    assert found.what and found.terms and found.cite
    assert bool(found.page) != bool(found.repository)
    if found.repository:
      assert re.fullmatch("[0-9a-f]{40}", found.commit)
      for files in found.files.values():
        assert found.url(files[0]).startswith("https://raw.githubusercontent")
    if found.read:
      assert found.read in {"utf-8", "latin-1", *corpora.READERS}
    assert set(found.lines) <= corpora.LINES.keys()
    assert not found.lines or found.read
    assert found.files.keys() in (
      {"all"},
      {"train", "test"},
      {"train", "validation", "test"},
      {"train", "test", "anomalous"},
    )
    for file in (file for some in found.files.values() for file in some):
      assert file.size > 0
      assert re.fullmatch("[0-9a-f]{64}|md5:[0-9a-f]{32}", file.checksum)
    names = [file.name for some in found.files.values() for file in some]
    assert len({*names}) == len(names) or found.page
    config_of(name)  # Its fields are fields, and do not conflict.
