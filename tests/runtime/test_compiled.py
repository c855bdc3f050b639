"""The cache of compiled programs."""

import os
import time

import pytest

from seqrnn.runtime import compiled

DIRECTORY = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A cache of five programs, the first of which was used last."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.delenv(DIRECTORY)
  monkeypatch.delenv("JAX_COMPILATION_CACHE_MAX_SIZE", raising=False)
  compiled.enable_cache()
  folder = tmp_path / "seqrnn" / "compiled" / compiled._machine()
  assert os.environ[DIRECTORY] == str(folder)
  folder.mkdir(parents=True)
  for n in range(5):
    (folder / f"{n}-cache").write_bytes(bytes(100))
    then = time.time() - 1000 + n
    os.utime(folder / f"{n}-cache", (then, then))
  os.utime(folder / "0-cache", (time.time(), time.time() - 1000))
  return folder


def names(folder):
  return sorted(path.name[0] for path in folder.iterdir())


def test_the_least_recently_used_programs_are_removed(folder):
  old = folder.with_name("jaxlib-0") / "0-cache"  # Of an older version.
  old.parent.mkdir()
  old.write_bytes(bytes(100))
  os.utime(old, (0, 0))
  compiled.prune(600)
  assert names(folder) == list("01234") and old.exists()
  compiled.prune(599)
  assert names(folder) == list("0234") and not old.exists()


def test_environment_variables_of_jax_take_precedence(folder, monkeypatch):
  for name, value in (
    (DIRECTORY, str(folder.with_name("other"))),
    ("JAX_COMPILATION_CACHE_MAX_SIZE", "-1"),
  ):
    monkeypatch.setenv(name, value)
    compiled.enable_cache()
    compiled.prune(1)
    assert os.environ[name] == value
    assert names(folder) == list("01234")
