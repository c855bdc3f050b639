"""docs/results/detection.md is made from the stored figures of the runs."""

import json
from pathlib import Path

from benchmarks import detection
from seqrnn.config import read as config_lib

ROOT = Path(__file__).resolve().parents[1]


def test_every_case_is_a_config():
  for case in detection.CASES.values():
    for look in case.detect.values():
      config = config_lib.read_config(ROOT / case.config)
      for name, value in {**case.fields, **look}.items():
        config_lib.override(config, name, str(value))
      config_lib.check(config)


def test_the_page_is_made_of_what_is_kept():
  kept = json.loads((ROOT / "benchmarks/detection.json").read_text())
  page = (ROOT / "docs/results/detection.md").read_text()
  assert detection.render(kept) == page
  for name in kept:
    assert f"## {detection.CASES[name].title}\n" in page
