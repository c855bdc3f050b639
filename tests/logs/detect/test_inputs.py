"""Files of detect/, whatever they hold: they are read, or refused in a line."""

import numpy as np
import pytest

from seqrnn.errors import UserError
from seqrnn.logs.detect import inputs
from seqrnn.reporting import alarms

DEEP = "[" * 200_000


def refused(path, read, *args):
  """Reads, which must be refused in a line that has the file and the remedy."""
  with pytest.raises(UserError) as caught:
    read(*args)
  message = str(caught.value)
  assert message.startswith(str(path)) and "\n" not in message
  assert message.endswith("; run --mode=detect again")


def test_a_file_that_detection_did_not_write_is_named(tmp_path):
  folder = tmp_path / "detect"
  folder.mkdir()
  for name, content in (
    ("report.json", DEEP),
    ("report.json", "[]"),
    ("report.json", '{"figures": {"max": 3}}'),
    ("report.json", '{"figures": {"max": {"f1": "\xff"}}}'),
    ("sessions.csv", "session\na"),
    ("sessions.csv", 'combined\n"1'),
    ("sessions.csv", "a" * (2**24 + 1)),
  ):
    (folder / name).write_bytes(content.encode("latin-1"))
    refused(folder, alarms.sections, tmp_path)
    (folder / name).unlink()


def test_a_damaged_archive_is_refused(tmp_path):
  path, rng = tmp_path / "calibration.npz", np.random.default_rng(0)
  np.savez_compressed(path, nll=np.zeros(3), sizes=np.array([1, 2]))
  assert inputs.load_arrays(path)["sizes"].tolist() == [1, 2]
  whole = path.read_bytes()
  for _ in range(100):  # Any byte may change; the archive has checksums.
    damaged = bytearray(whole)
    damaged[rng.integers(len(whole))] ^= rng.integers(1, 256)
    path.write_bytes(damaged)
    try:
      inputs.load_arrays(path)
    except UserError as error:
      assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
  np.savez(path, nll=np.array([{}], object))
  refused(path, inputs.load_arrays, path)
