"""Files of detect/, whatever they hold: they are read, or refused in a line."""

import gzip
import json
import zipfile

import numpy as np
import pytest

from seqrnn.errors import UserError
from seqrnn.logs.detect import records, thresholds
from seqrnn.reporting import alarms, page
from tests.conftest import Page

SESSIONS = "session,events,p_value,flag,combined\na,2,0.5,1,3\nb,1,,1,inf\n"
EVENTS = "session,event,bits,flag\n" + "".join(
  f"a,e{n},{n % 7}.5,{int(n == 40)}\n" for n in range(99)
)
DEEP = "[" * 200_000


def folder_with(tmp_path, **contents):
  """detect/ with files, whose names have _ in place of a dot."""
  folder = tmp_path / "detect"
  folder.mkdir(exist_ok=True)
  for name, content in contents.items():
    path = folder / name.replace("_", ".")
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if "gz" in name else content)
  return folder


def refused(path, read, *args):
  """Reads, which must be refused in a line that has the file and the remedy."""
  with pytest.raises(UserError) as caught:
    read(*args)
  message = str(caught.value)
  assert message.startswith(f"{path}: ") and "\n" not in message
  assert message.endswith("; run --mode=detect again")
  return message


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("report.json", DEEP),
    ("report.json", '{"a":' * 200_000),
    ("report.json", "[]"),
    ("report.json", '{"figures": {"max": 3}}'),
    ("report.json", '{"figures": []}'),
    ("report.json", '{"figures": {"max": {"f1": "\xff"}}}'.encode("latin-1")),
    ("sessions.csv", "session\na"),
    ("sessions.csv", "combined\nnan"),
    ("sessions.csv", "a" * (2**24 + 1)),
  ],
)
def test_a_file_that_detection_did_not_write_so_is_named(
  tmp_path, name, content
):
  folder = folder_with(tmp_path, **{name.replace(".", "_"): content})
  refused(folder / name, alarms.sections, tmp_path)


def test_a_small_file_that_holds_too_much_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(records, "_LIMIT", 2**16)
  monkeypatch.setattr(records, "_RATIO", 100)
  folder = folder_with(tmp_path, sessions_csv="x" * 2**17)
  path = folder / "sessions.csv"
  assert "a line of more" in refused(path, lambda: [*records.rows(path)])
  path = folder / "calibration.npz"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    file.writestr("nll.npy", bytes(2**24))
  message = refused(path, records.read_arrays, path)
  assert "is too large when decompressed" in message


@pytest.mark.parametrize(
  "content",
  [DEEP, '{"a":' * 200_000, "[]", "{}", '{"events": {"above": 1e999}}', ""],
)
def test_thresholds_that_detection_did_not_write_are_refused(tmp_path, content):
  folder = folder_with(tmp_path, thresholds_json=content)
  path = folder / "thresholds.json"
  refused(path, thresholds.read, path)


def test_models_are_in_the_workdir_of_their_thresholds(tmp_path):
  (workdir := tmp_path / "run").mkdir()
  (workdir / "folds").symlink_to(tmp_path)
  fields = {name: "max" for name in thresholds._SETTINGS}
  for name, is_inside in {
    **{".": True, "trials/1": True, "trials/../trials/1": True},
    **{"..": False, str(tmp_path / "other"): False, "folds/1-of-2": False},
    **{f"../{workdir.name}x": False, "a\0b": False},
  }.items():
    record = {"members": [{"folder": name, "step": 1}], "settings": fields}
    content = json.dumps({**record, "left_out": []})
    path = folder_with(workdir, thresholds_json=content) / "thresholds.json"
    if is_inside:
      assert thresholds.read(path).members == [(name, 1)]
    else:
      refused(path, thresholds.read, path)


def test_numbers_that_are_none_of_a_calibration_are_refused(tmp_path):
  path = tmp_path / "calibration.npz"
  for arrays in (
    {"nll": np.ones(3), "event_counts": np.ones(2)},
    {"nll": np.ones((2, 2)), "event_counts": np.ones(2)},
    {"nll": np.array(["a"]), "event_counts": np.ones(1)},
    {"nll": np.ones(2)},
  ):
    np.savez(path, **arrays)
    refused(path, records.read_arrays, path)


def test_short_sessions_have_no_rank_in_the_page(tmp_path):
  folder_with(tmp_path, sessions_csv=SESSIONS, events_csv=EVENTS)
  top = {"eyebrow": "", "heading": "", "text": ""}
  text = Page(page.render("", top, alarms.sections(tmp_path))).text
  assert "flagged for their length alone, without a score: 1." in text
  assert "inf" not in text
  # Of many events those near the odd one.
  assert "e32 " in text and "e48 " in text
  assert "e31 " not in text and "e49 " not in text
