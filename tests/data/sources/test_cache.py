"""The cache: a corpus is made once, never half, never another one's."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrnn.data.read import encoding
from seqrnn.data.read.encoding import UNITS, encode_in_memory
from seqrnn.data.read.reading import Source
from seqrnn.data.sources import cache, corpora
from seqrnn.errors import UserError
from tests.data.read.test_encoding import any_content, plain


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The folder of kept corpora, which every corpus goes to."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(cache, "LARGE", 0)
  return tmp_path / "cache" / "seqrnn" / "corpora"


@pytest.fixture
def source(tmp_path):
  path = tmp_path / "text.txt"
  path.write_text("To be, or not to be: that is the question. é\n" * 50)
  return Source("text.txt", path)


@pytest.fixture
def encodings(monkeypatch):
  """How often something was encoded."""
  calls, encode = [], encoding.encode

  def count(*args):
    calls.append(args)
    return encode(*args)

  monkeypatch.setattr(encoding, "encode", count)
  return calls


def entries(folder):
  return [path for path in folder.iterdir() if not path.suffix]


def read(source, unit="char", errors="strict"):
  return corpora.encode([source], unit, errors)


@settings(deadline=None, database=None, max_examples=40)
@given(st.lists(any_content, min_size=1, max_size=3), st.sampled_from(UNITS))
def test_a_mapped_corpus_is_one_in_memory(tmp_path_factory, contents, unit):
  sources = [Source(f"f{i}", content) for i, content in enumerate(contents)]

  def outcome(encode):
    try:
      return plain(encode(sources, unit, "strict"))
    except UserError as error:
      return str(error)

  with pytest.MonkeyPatch.context() as patch:
    folder = tmp_path_factory.mktemp("cache")
    patch.setenv("XDG_CACHE_HOME", str(folder))
    patch.setattr(cache, "LARGE", 0)
    first = outcome(corpora.encode)
    assert first == outcome(corpora.encode) == outcome(encode_in_memory)
    # What is refused leaves nothing.
    left = entries(folder / "seqrnn" / "corpora")
    assert len(left) == (not isinstance(first, str))


def test_it_is_encoded_once(folder, source, encodings, monkeypatch):
  first, second = plain(read(source)), plain(read(source))
  assert first == second and len(encodings) == 1
  [entry] = entries(folder)
  # A copy elsewhere is the same corpus.
  copy = source.content.with_name("copy.txt")
  copy.write_bytes(source.content.read_bytes())
  assert plain(read(source._replace(content=copy))) == first
  assert entries(folder) == [entry] and len(encodings) == 1
  # Nothing is written then, and nobody waited for.
  monkeypatch.delattr(cache.files, "lock")
  assert plain(read(source)) == first


def test_small_corpora_leave_nothing(folder, source, monkeypatch):
  monkeypatch.setattr(cache, "LARGE", source.content.stat().st_size + 1)
  read(source)
  assert not folder.exists()
  monkeypatch.setattr(cache, "LARGE", source.content.stat().st_size)
  read(source)
  assert len(entries(folder)) == 1


def test_a_packed_corpus_is_as_large_as_its_text(tmp_path):
  path = tmp_path / "a.log.zst"
  path.write_bytes(b"a" * 100)
  sources = [Source("a.log.zst", path), Source("b", b"b")]
  assert cache.size(sources) == 1001


def test_whatever_makes_another_corpus_is_another_entry(
  folder, source, encodings
):
  read(source)
  read(source, "byte")
  read(source, errors="replace")
  read(source._replace(name="other.txt"))
  source.content.write_text("To be?")
  assert plain(read(source))[0] == list("To be?")
  # The same bytes, cut elsewhere.
  for parts in (["ab", "c"], ["a", "bc"]):
    corpora.encode(
      [Source(f"f{i}", part.encode()) for i, part in enumerate(parts)],
      "char",
      "strict",
    )
  assert len(entries(folder)) == len(encodings) == 7


def test_a_mapped_corpus_cannot_be_changed(folder, source):
  assert folder.name == "corpora"
  with pytest.raises(ValueError, match="read-only"):
    read(source).ids[0] = 1


def test_a_damaged_entry_is_encoded_anew(folder, source, encodings, capsys):
  expected = plain(read(source))
  [entry] = entries(folder)
  intact = entry.read_bytes()
  size = len(intact)
  places = [*range(0, size, size // 20), *range(size - 24, size)]
  damages = [b"", b"x", b"\0" * size, intact + b"\0", b"\0" + intact]
  damages += [intact[:place] for place in places]
  damages += [
    intact[:i] + bytes([intact[i] ^ 1]) + intact[i + 1 :] for i in places
  ]
  for n, damaged in enumerate(damages, 1):
    entry.write_bytes(damaged)
    assert plain(read(source)) == expected
    assert entry.read_bytes() == intact
    assert len(encodings) == 1 + n
    assert f"{entry}: damaged, made again\n" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_what_is_interrupted_is_not_there(folder, source, monkeypatch, step):
  def stop(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    if step == "write":
      patch.setattr(cache.storage, "write", stop)
    else:
      patch.setattr(cache.os, step, stop)
    with pytest.raises(KeyboardInterrupt):
      read(source)
  assert not entries(folder) and not list(folder.glob("*.tmp"))
  assert plain(read(source)) == plain(
    encode_in_memory([source], "char", "strict")
  )


def start(source, pause):
  """A process that encodes a corpus, waiting before each of its chunks."""
  code = f"""
import time
from pathlib import Path
from seqrnn.data.sources import cache, corpora
from seqrnn.data.read import encoding, reading
cache.LARGE, reading.CHUNK = 0, 64
chunks = reading.chunks
def slow(*given, **fields):
  for n, chunk in enumerate(chunks(*given, **fields)):
    time.sleep({pause})
    yield chunk
reading.chunks = slow
source = reading.Source({source.name!r}, Path({str(source.content)!r}))
print("begun", flush=True)
corpus = corpora.encode([source], "char", "strict")
print(len(corpus.ids), flush=True)
"""
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    cwd=Path(__file__).parents[2],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout is not None
  assert process.stdout.readline() == "begun\n"
  return process


def test_a_killed_process_leaves_nothing_that_is_read(
  folder, source, encodings, monkeypatch
):
  process = start(source, 0.02)
  while not list(folder.glob("*.tmp")):
    assert process.poll() is None  # It ends once it has written the file.
    time.sleep(0.005)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  [left] = folder.glob("*.tmp")
  assert not entries(folder)
  expected = plain(encode_in_memory([source], "char", "strict"))
  assert plain(read(source)) == expected
  assert len(encodings) == 2
  # Another process might still write to it; an hour later none does.
  assert left.exists()
  monkeypatch.setattr(
    cache.files.time, "time", lambda: left.stat().st_mtime + 3601
  )
  read(source, "byte")
  assert not left.exists()


def test_of_two_that_need_it_one_waits(folder, source, encodings, capfd):
  process = start(source, 0.015)
  while not list(folder.glob("*.tmp")):
    assert process.poll() is None
    time.sleep(0.002)
  corpus = read(source)
  out, err = process.communicate()
  assert (out, err) == (f"{len(corpus.ids)}\n", "")
  assert not encodings
  assert "waiting for a process that reads" in capfd.readouterr().err


def test_without_locks_each_encodes(folder, source, encodings, monkeypatch):
  import fcntl

  def fail(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", fail)
  together = threading.Barrier(2, timeout=600)
  write = cache.storage.write

  def meet(*given):
    together.wait()
    write(*given)

  monkeypatch.setattr(cache.storage, "write", meet)
  found = []
  threads = [
    threading.Thread(target=lambda: found.append(plain(read(source))))
    for _ in range(2)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(encodings) == 2 and len(found) == 2 and found[0] == found[1]
  assert len(entries(folder)) == 1 and not list(folder.glob("*.tmp"))


def test_a_full_disk_is_told_with_its_folder(folder, source, monkeypatch):
  def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(cache.os, "fsync", fail)
  with pytest.raises(UserError) as error:
    read(source)
  assert str(error.value) == (
    f"{folder}: cannot keep the corpus: No space left on device; the"
    " environment variable XDG_CACHE_HOME names another place, and TMPDIR one"
    " for temporary files"
  )
  assert not entries(folder) and not list(folder.glob("*.tmp"))


def test_a_folder_that_cannot_be_made_is_told(folder, source):
  folder.parent.parent.write_text("a file")
  with pytest.raises(UserError, match=rf"^{folder}: cannot keep .*: Not a dir"):
    read(source)


def test_a_file_that_changes_after_it_is_hashed(folder, source, monkeypatch):
  with_version = cache.reading.with_version

  def change(source):
    found = with_version(source)
    # As long as before, and as old.
    times = source.content.stat()
    content = bytearray(source.content.read_bytes())
    content[0] ^= 1
    source.content.write_bytes(content)
    os.utime(source.content, ns=(times.st_atime_ns, times.st_mtime_ns))
    return found

  monkeypatch.setattr(cache.reading, "with_version", change)
  with pytest.raises(UserError, match=r"text\.txt: changed while it was read$"):
    read(source)
  assert not entries(folder) and not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("terminal", [True, False])
def test_a_person_sees_how_far_it_is(
  folder, source, monkeypatch, capsys, terminal
):
  if terminal:
    monkeypatch.setenv("FORCE_COLOR", "1")
  read(source)
  out = capsys.readouterr().out
  assert ("reading" in out) == terminal
  read(source)  # Nothing to wait for.
  assert not capsys.readouterr().out
  assert entries(folder)
