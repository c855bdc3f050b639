"""Tests that depend on the compiler, with all optimizations that users have.

The other tests leave most of LLVM's out, see conftest. Run all of them so with

    SEQRNN_TESTS_OPTIMIZED=1 python -m pytest -n 2
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TRAIN, SCAN = "tests/modes/test_train.py::", "tests/models/test_scan.py::"
NETWORK = "tests/models/test_network.py::"
SUBJECTS = [
  # Recorded values, known faults, memory.
  "tests/test_golden.py",
  "tests/test_jax.py",
  f"{SCAN}test_memory_of_a_stack",
  # Equal bits.
  f"{TRAIN}test_going_on_repeats_an_uninterrupted_run_to_the_bit[stateful]",
  f"{NETWORK}test_probe_passes_what_does_not_leak",
]
# It is no worker, and has a cache of its own.
LEFT_OUT = ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "SEQRNN_TESTS_CACHE")


def test_it_is_so_with_all_optimizations():
  environment = {k: v for k, v in os.environ.items() if k not in LEFT_OUT}
  environment["SEQRNN_TESTS_OPTIMIZED"] = "1"
  done = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", *SUBJECTS],
    cwd=Path(__file__).parents[1],
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout
