"""The cache: a corpus is read once, never half, never another one's."""

import errno

import numpy as np
import pytest

from seqrnn.data.documents import Corpus
from seqrnn.data.idle_times import LogCuts
from seqrnn.data.logs import log_corpus
from seqrnn.data.read import encoding
from seqrnn.data.read.reading import Source
from seqrnn.data.sources import cache, corpora
from seqrnn.errors import UserError
from seqrnn.runtime import files
from tests.data.logs.test_logs import HEADER, settings
from tests.data.read.test_encoding import plain


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The folder of corpora on disk, which every corpus is written to."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(cache, "LARGE", 0)
  monkeypatch.setattr(cache, "_OPEN", 1)
  cache._opened.clear()
  return tmp_path / "cache" / "seqrnn" / "corpora"


@pytest.fixture
def source(tmp_path):
  path = tmp_path / "text.txt"
  path.write_text("To be, or not to be: that is the question. é\n" * 50)
  return Source("text.txt", path)


def entries(folder):
  return [path for path in folder.iterdir() if not path.suffix]


def read(source, unit="char", errors="strict"):
  """The corpus as another process reads it, and the number of encodings."""
  count = 0

  def encode():
    nonlocal count
    count += 1
    return encoding.encode([source], unit, errors), ["a line"]

  cache._opened.clear()
  corpus = cache.open_corpus([source], [unit, errors], encode)
  return corpus, count


def values(corpus):
  """The fields of a corpus as Python objects."""
  fields = {}
  for name, value in corpus._asdict().items():
    if isinstance(value, (Corpus, LogCuts)):
      fields[name] = values(value)
    elif isinstance(value, np.ndarray):
      fields[name] = value.dtype.str, value.tolist()
    elif value is None or isinstance(value, float):
      fields[name] = value
    else:
      fields[name] = list(value)
  return fields


def test_a_file_of_the_cache_runs_no_code(tmp_path, capsys):
  path = tmp_path / "corpus.pickle"
  for content in (b"cos\nsystem\n(S'true'\ntR.", b"cthis\nscalar\n."):
    path.write_bytes(content)
    files.write_sums(tmp_path, [(files.checksum_of(path), path.name)])
    assert cache._load(tmp_path) is None
    shown = capsys.readouterr()
    assert "damaged" in shown.err and not shown.out


def test_it_is_encoded_once(folder, source, capsys):
  first, count = read(source)
  assert count == 1 and "large corpus" in capsys.readouterr().err
  second, count = read(source)
  assert plain(second) == plain(first) and count == 0
  assert capsys.readouterr().err == "a line\n"
  with pytest.raises(ValueError, match="read-only"):
    second.ids[0] = 1
  assert len(entries(folder)) == 1
  # Whatever makes another corpus is another entry.
  read(source, "byte")
  read(source, errors="replace")
  read(source._replace(name="other.txt"))
  source.content.write_text("To be?")
  corpus, _ = read(source)
  assert corpus.symbols == list("To be?")
  assert len(entries(folder)) == 5


def test_a_damaged_entry_is_encoded_anew(folder, source, capsys):
  expected = plain(read(source)[0])
  [entry] = entries(folder)
  for path in sorted(entry.iterdir()):
    for damage in (
      lambda path: path.unlink(),
      lambda path: path.write_bytes(path.read_bytes()[:-1]),
      lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
    ):
      damage(path)
      corpus, count = read(source)
      assert plain(corpus) == expected and count == 1
      assert f"{entry}: damaged, " in capsys.readouterr().err
  assert read(source)[1] == 0


def test_an_interrupted_write_leaves_nothing(folder, source, monkeypatch):
  def fail(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

  message = f"^{folder}: cannot be written: No space left on device$"
  for owner, step in ((cache.np, "save"), (cache.Path, "rename")):
    with monkeypatch.context() as patch:
      patch.setattr(owner, step, fail)
      with pytest.raises(UserError, match=message):
        read(source)
    assert not entries(folder) and not list(folder.glob("*.tmp"))


def test_a_file_that_changes_meanwhile_is_not_kept(folder, source):
  def grow():
    with source.content.open("a") as file:
      file.write("more")
    return encoding.encode([source], "char", "strict"), []

  corpus = cache.open_corpus([source], [], grow)
  assert corpus.text(0, len(corpus.ids)).endswith("more")
  assert not entries(folder)


@pytest.mark.usefixtures("folder")
def test_a_log_is_parsed_once(tmp_path, monkeypatch, capfd):
  text = "".join(
    f"081109 2036{n % 60:02} {n} net.Node: {n % 5} got req_{n % 7}\n"
    for n in range(300)
  )
  header = HEADER.replace("<Pid>", "<Label>")
  fields = {"log_header": header, "log_session": r"(req_\d+)"}
  config = settings(tmp_path, f"no session\n{text}", **fields)
  first = corpora.read_corpus(config.data)
  printed = capfd.readouterr().err
  assert "a.log: 1 of 301 lines do not fit the format" in printed
  assert printed.endswith("the first is line 1: 'no session'\n")
  monkeypatch.setattr(log_corpus, "_parse", None)
  cache._opened.clear()
  second = corpora.read_corpus(config.data)
  assert repr(values(second)) == repr(values(first))  # Also NaN.
  assert first.tags is not None and first.values is not None
  assert printed.endswith(capfd.readouterr().err)
  # Whatever changes it makes another corpus.
  config.data.log_session = r"req_(\d+)"
  with pytest.raises(TypeError):
    corpora.read_corpus(config.data)
