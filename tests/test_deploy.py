"""Files of deploy/: they name what exists."""

import re
from pathlib import Path

from seqrnn.config import read as config_lib
from seqrnn.logs.follow.health import Health
from tests.conftest import tiny

DEPLOY = Path(__file__).parents[1] / "deploy"


def test_metrics_exist():
  families = Health().registry.collect()
  names = {sample.name for family in families for sample in family.samples}
  used = re.findall(r"seqrnn_\w+", (DEPLOY / "alerts.yml").read_text())
  assert used and set(used) <= names


def test_an_alarm_of_any_severity_alerts():
  """A database timeout may be rated low."""
  text = (DEPLOY / "alerts.yml").read_text()
  assert "increase(seqrnn_alarms_total[" in text
  assert not re.search(r"seqrnn_alarms_total\{[^}]*severity", text)


def test_fields_and_files_exist(tmp_path):
  known = config_lib.flat(tiny(tmp_path, {"data.source": "stdlib"}))
  for path in DEPLOY.iterdir():
    text = path.read_text()
    fields = re.findall(r"--config\.([\w.]+)=", text)
    assert {*fields} <= {*known}, path
    names = re.findall(r"(?<=deploy/)\w[\w.]+|(?<=- \./)[\w.]+", text)
    assert [name for name in names if not (DEPLOY / name).exists()] == [], path
