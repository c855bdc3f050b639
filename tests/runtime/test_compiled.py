"""The cache of compiled programs."""

import os
import time

from seqrnn.runtime import compiled

DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
MONTH = 31 * 24 * 3600


def test_programs_that_are_out_of_use_are_removed(tmp_path, monkeypatch):
  """But not those of a folder that the user has named."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = tmp_path / "seqrnn" / "compiled"
  now = time.time()
  for name, read, written in (
    ("jaxlib-0/old", now - MONTH, now - MONTH),  # Of another version.
    ("jaxlib-1/old", now - MONTH, now - MONTH),
    ("jaxlib-1/read", now, now - MONTH),
    ("jaxlib-1/new", now, now),
  ):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (read, written))
  monkeypatch.setenv(DIRECTORY, str(folder))
  compiled.enable_cache()
  assert os.environ[DIRECTORY] == str(folder)
  assert len([*folder.glob("*/*")]) == 4
  monkeypatch.delenv(DIRECTORY)
  compiled.enable_cache()
  names = sorted(path.name for path in folder.glob("*/*"))
  assert names == ["new", "read"]
