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


def test_what_was_not_used_for_longest_goes(folder):
  compiled.prune(500)
  assert names(folder) == list("01234")
  compiled.prune(499)
  assert names(folder) == list("034")


def test_that_of_a_machine_of_old_goes(folder):
  month = 31 * 86400
  for name, age in (("jaxlib-0", month), ("jaxlib-1", 10)):
    other = folder.with_name(name)
    other.mkdir()
    (other / "0-cache").touch()
    os.utime(other, (time.time() - age,) * 2)
  os.utime(folder, (time.time() - month,) * 2)
  compiled.prune()
  left = {path.name for path in folder.parent.iterdir()}
  assert left == {"jaxlib-1", folder.name}
  assert names(folder) == list("01234")


@pytest.mark.parametrize(
  ("name", "value"),
  [(DIRECTORY, "other"), ("JAX_COMPILATION_CACHE_MAX_SIZE", "-1")],
)
def test_what_the_user_says_to_jax_counts(folder, monkeypatch, name, value):
  if value == "other":
    value = str(folder.with_name("other"))
  monkeypatch.setenv(name, value)
  compiled.enable_cache()
  compiled.prune(1)
  assert os.environ[name] == value
  assert names(folder) == list("01234")
