"""The layout of corpora in files: what is read is what was written."""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrnn.data.documents import Corpus, names_of
from seqrnn.data.logs import logs
from seqrnn.data.logs.cuts import Cuts
from seqrnn.data.read.columns import Changes, Stored, Tokens
from seqrnn.data.sources import cache, corpora, storage
from seqrnn.errors import UserError
from tests.data.logs.test_logs import HEADER, settings

texts = st.lists(st.text(st.characters(), max_size=3), min_size=1, max_size=9)


def values(corpus):
  """The fields of a corpus as Python objects."""
  found = {}
  for name, value in corpus._asdict().items():
    if isinstance(value, (Corpus, Cuts)):
      found[name] = values(value)
    elif isinstance(value, np.ndarray):
      found[name] = value.dtype.str, value.tolist()
    elif value is None or isinstance(value, float):
      found[name] = value
    else:
      found[name] = list(value)
  return found


def collected(kind, some):
  column = kind()
  for text in some:
    column.append(text)
  return column.texts()


@hypothesis.settings(deadline=None, derandomize=True, max_examples=60)
@given(texts, texts, st.booleans(), st.booleans())
def test_a_corpus_is_as_it_was(tmp_path_factory, some, names, tagged, named):
  symbols = collected(Tokens, some)
  n, count = len(some), len(names)
  numbers = np.arange(2 * count)[::2]  # Not in one piece.
  corpus = Corpus(
    "log",
    symbols.symbols,
    symbols.narrow(),
    np.array([0, *[n] * count]),
    names_of([("f", 0), ("g\ud800", count // 2)], numbers) if named else names,
    np.arange(count),
    names,
    labels=collected(Tokens, names),
    lines=np.arange(n, dtype=np.int64),
    timestamps=collected(Changes, some),
    cuts=Cuts("f", "lines", 0.1, *np.zeros((6, count)), 0.5, np.zeros(count))
    if named
    else None,
    origin="1.2",
  )
  if tagged:
    ids = np.zeros(n, bool)  # Of any type.
    corpus = corpus._replace(tags=corpus._replace(symbols=["a"], ids=ids))
  path = tmp_path_factory.mktemp("storage") / "corpus"
  with path.open("wb") as file:
    storage.write((corpus, ["a line"]), file)
  with path.open("rb") as file:
    made = storage.read(file)
  assert made is not None
  found, lines = made
  assert values(found) == values(corpus) and lines == ["a line"]
  assert isinstance(found.symbols, list)
  assert [found.names[j] for j in range(count)] == list(corpus.names)
  arrays = [found.ids, found.bounds, found.lines]
  assert all(array.flags.aligned for array in arrays)
  # Each array is there once.
  bound = sum(map(len, map(str.encode, map(ascii, [*some, *names])))) * 10
  assert path.stat().st_size < 3000 + bound + 90 * (n + count)


def test_many_texts_are_read_in_parts(monkeypatch):
  monkeypatch.setattr("seqrnn.data.read.columns._HELD", 3)
  given = [f"é{n}" * (n % 4) for n in range(20)]
  found = collected(Changes, given).symbols
  assert isinstance(found, Stored)
  assert list(found) == [found[n] for n in range(len(found))]


@pytest.fixture
def large(tmp_path, monkeypatch):
  """Each log is large; a function that forgets what this process has read."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(cache, "LARGE", 0)
  logs._read.cache_clear()
  return logs._read.cache_clear


def test_a_log_is_parsed_once(tmp_path, large, monkeypatch, capfd):
  text = "".join(
    f"081109 2036{n % 60:02} {n} net.Node: {n % 5} got req_{n % 7}\n"
    for n in range(300)
  )
  header = HEADER.replace("<Pid>", "<Label>")
  fields = {"log_header": header, "log_session": r"(req_\d+)"}
  config = settings(tmp_path, f"no session\n{text}", **fields)
  first = corpora.read(config.data)
  said = capfd.readouterr().err
  assert said == (
    "a.log: 1 of 301 lines do not fit data.log_header and have no time, the"
    " first is line 1\na.log: 1 of 301 lines belong to no session; the first is"
    " line 1: 'no session'\n"
  )
  with monkeypatch.context() as patch:
    patch.setattr(logs, "_parse", None)
    large()
    second = corpora.read(config.data)
    assert values(second) == values(first) and first.tags is not None
    assert capfd.readouterr().err == said
  # Whatever changes it makes another corpus.
  config.data.log_codes = False
  with monkeypatch.context() as patch:
    patch.setattr(logs, "_parse", None)
    with pytest.raises(TypeError):
      corpora.read(config.data)


@pytest.mark.usefixtures("large")
def test_a_table_is_parsed_once(tmp_path, monkeypatch):
  table = "session,event,label\nx,a,0\ny,b,1\nx,c,0\n"
  fields = {"unit": "session", "format": "csv"}
  config = settings(tmp_path, {"a.csv": table, "b.csv": table}, **fields)
  first = corpora.read(config.data)
  monkeypatch.setattr(logs, "_table", None)
  assert values(corpora.read(config.data)) == values(first)
  assert first.tags is not None and first.files is not None
  config.data.label_column = "event"
  with pytest.raises(TypeError):
    corpora.read(config.data)


@pytest.mark.usefixtures("large")
def test_a_log_that_grows_is_kept_as_it_was_read(tmp_path, monkeypatch):
  config = settings(tmp_path, "a\nb\n")
  path = tmp_path / "logs" / "a.log"
  with_version = cache.reading.with_version

  def grow(source):
    found = with_version(source)
    with path.open("a") as file:
      file.write("c\n")
    return found

  monkeypatch.setattr(cache.reading, "with_version", grow)
  assert corpora.read(config.data).symbols == ["a", "b"]
  assert corpora.read(config.data).symbols == ["a", "b", "c"]
  # The log of before, whose corpus is kept.
  monkeypatch.setattr(logs, "_parse", None)
  path.write_text("a\nb\n")
  assert corpora.read(config.data).symbols == ["a", "b"]


@pytest.mark.usefixtures("large")
def test_a_log_that_changes_is_refused(tmp_path, monkeypatch):
  config = settings(tmp_path, {"a.log.xz": "a\nb\n"})
  path = tmp_path / "logs" / "a.log.xz"
  with_version = cache.reading.with_version

  def change(source):
    found = with_version(source)
    settings(tmp_path, {"a.log.xz": "a\nc\n"})
    return found

  monkeypatch.setattr(cache.reading, "with_version", change)
  with pytest.raises(UserError, match=rf"^{path}: changed while it was read$"):
    corpora.read(config.data)
