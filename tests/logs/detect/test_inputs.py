"""Files of detect/, whatever they hold: they are read, or refused in a line."""

import numpy as np
import pytest

from seqrnn.errors import UserError
from seqrnn.logs.detect import inputs


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
  with pytest.raises(UserError, match="; run --mode=detect again$"):
    inputs.load_arrays(path)
