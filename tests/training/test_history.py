"""The tables that a run writes as it trains."""

import os

import pytest

from seqrnn.errors import MachineError, UserError
from seqrnn.runtime import manifest
from seqrnn.training.history import (
  add_row,
  cut_tables,
  draw_history,
  read_rows,
  record_tables,
)

ROWS = [{"step": n, "loss": 1 / n, "name": 2.0} for n in (10, 20, 30)]
WRONG = "metrics.csv: (row [12] must be|its first column must)"
LINES = [
  b"step,loss,name\n",
  b"10,0.1,2\n",
  b"20,0.05,2\n",
  b"30,0.03333333,2\n",
]


@pytest.fixture
def table(tmp_path):
  path = tmp_path / "metrics.csv"
  for row in ROWS:
    add_row(path, row)
  assert path.read_bytes() == b"".join(LINES)
  return path


@pytest.mark.parametrize(
  ("step", "lines"), [(5, 0), (9, 0), (10, 2), (29, 3), (30, 4), (99, 4)]
)
def test_rows_after_a_step_are_dropped(table, step, lines):
  cut_tables(table.parent, step)
  assert table.read_bytes() == b"".join(LINES[:lines])


def test_a_table_that_ends_anywhere_goes_on(table):
  whole = table.read_bytes()
  ends = [len(b"".join(LINES[: n + 1])) for n in range(4)]
  for size in range(len(whole)):
    table.write_bytes(whole)
    os.truncate(table, size)
    done = sum(end <= size for end in ends)  # Lines that are there.
    assert len(read_rows(table)) == max(done - 1, 0)
    cut_tables(table.parent, 99)
    for row in ROWS[max(done - 1, 0) :]:
      add_row(table, row)
    assert table.read_bytes() == whole


def test_there_may_be_no_table(tmp_path):
  cut_tables(tmp_path, 9)
  draw_history(tmp_path, "nats a symbol")
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "content",
  [
    "what is this\n1\n",
    "step,loss\n10\n",
    "step,loss\nx,1\n",
    "step,loss\n1.5,1\n",
    "step,loss\n10,1,2\n",
    "loss,step\n1,2\n",
    "step,loss\n\n10,1\n",
    "step,loss\n" + 5000 * "1" + ",1\n",
    b"\xff\xfe\0\n\0",
    b"step,loss\n\xff,1\n",
    "step,loss\n10,1\r20,1\n",
    "step,loss\r\n10,1\r\n",
    "step,\rloss\n10\n",
    'step,"loss\n10,1\n20,2\n',
    "step,loss\n10,\0\n",
  ],
)
def test_what_is_no_table_is_refused(tmp_path, content):
  path = tmp_path / "metrics.csv"
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  before = path.read_bytes()
  for use in (read_rows, lambda path: cut_tables(path.parent, 9)):
    with pytest.raises(UserError, match=WRONG):
      use(path)
  with pytest.raises(UserError, match=WRONG):
    draw_history(tmp_path, "nats a symbol")
  assert path.read_bytes() == before


def test_rows_of_other_names_are_not_mixed(table):
  line = "its columns are step,loss,name, must be step,new; move it away"
  with pytest.raises(UserError, match=line):
    add_row(table, {"step": 40, "new": 1.0})
  assert table.read_bytes() == b"".join(LINES)


@pytest.fixture
def run(table):
  """A workdir whose table has rows until step 20 that were recorded."""
  manifest.write(table.parent, {"config.json": b"{}"})
  cut_tables(table.parent, 20)
  record_tables(table.parent)
  add_row(table, ROWS[2])
  return table.parent


def test_a_row_that_was_changed_is_refused(run):
  table = run / "metrics.csv"
  assert len(read_rows(table)) == 3
  whole = table.read_bytes()
  table.write_bytes(whole.replace(b"0.033", b"0.034"))  # Not yet recorded.
  assert len(read_rows(table)) == 3
  table.write_bytes(whole.replace(b"20,0.05", b"20,0.06"))
  for use in (
    lambda: read_rows(table),
    lambda: cut_tables(run, 30),
    lambda: cut_tables(run, 10),
    lambda: record_tables(run),
  ):
    with pytest.raises(MachineError, match="metrics.csv: differs from its"):
      use()


@pytest.mark.parametrize("step", [5, 10, 20, 30])
def test_wherever_a_cut_ends_the_rows_are_what_is_recorded(
  run, step, monkeypatch
):
  real, left = os.replace, 0

  def dying(old, new):
    nonlocal left
    if not left:
      raise KeyboardInterrupt
    left -= 1
    real(old, new)

  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", dying)
    for steps in range(3):
      left = steps
      try:
        cut_tables(run, step)
      except KeyboardInterrupt:
        read_rows(run / "metrics.csv")
  assert all(int(r["step"]) <= step for r in read_rows(run / "metrics.csv"))
  for row in ROWS:
    if row["step"] > step:
      add_row(run / "metrics.csv", row)
      record_tables(run)
  assert (run / "metrics.csv").read_bytes() == b"".join(LINES)


def test_a_table_that_was_moved_away_begins_anew(run):
  (run / "metrics.csv").unlink()
  cut_tables(run, 30)
  add_row(run / "metrics.csv", ROWS[0])
  assert len(read_rows(run / "metrics.csv")) == 1


def test_a_picture_needs_its_columns(table):
  line = "metrics.csv: has no column train_loss; move it away"
  with pytest.raises(UserError, match=line):
    draw_history(table.parent, "nats a symbol")
