"""Files of deploy/: they name what exists."""

import re
from pathlib import Path

import pytest

from seqrnn.config import read as config_lib
from seqrnn.logs.follow.health import Health
from tests.conftest import tiny

DEPLOY = Path(__file__).parents[1] / "deploy"
FILES = sorted(DEPLOY.iterdir())


def test_metrics_exist():
  health = Health()
  health.alarm({"kind": 1, "severity": "high"})
  families = health.registry.collect()
  names = {sample.name for family in families for sample in family.samples}
  used = re.findall(r"seqrnn_\w+", (DEPLOY / "alerts.yml").read_text())
  assert used and set(used) <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_fields_and_files_exist(path):
  text = path.read_text()
  known = config_lib.flat(tiny(path.parent, {"data.source": "stdlib"}))
  for name in re.findall(r"--config\.([\w.]+)=", text):
    assert name in known
  for name in re.findall(r"(?<=deploy/)\w[\w.]+|(?<=- \./)[\w.]+", text):
    assert (DEPLOY / name).exists()
