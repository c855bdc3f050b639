"""Spark: events, verdicts and incidents are those of one machine."""

import random
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from benchmarks import shop_log
from seqrnn import experiments
from seqrnn.data.sources import corpora
from seqrnn.errors import UserError
from seqrnn.logs.detect.tables import summary
from seqrnn.modes import detect
from seqrnn.training import train
from tests.conftest import read_csv, tiny
from tests.modes.conftest import walk

pytestmark = [
  pytest.mark.spark,
  # PySpark leaves sockets to the garbage collector.
  pytest.mark.filterwarnings("ignore::ResourceWarning"),
  pytest.mark.filterwarnings("ignore::DeprecationWarning"),
  pytest.mark.filterwarnings("ignore::FutureWarning"),
  pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
if shutil.which("java") is None:
  pytest.skip("there is no Java", allow_module_level=True)

from pyspark.sql import SparkSession  # noqa: E402

from seqrnn.logs.spark import engine, read  # noqa: E402
from seqrnn.logs.spark import session as spark_session  # noqa: E402

SESSION = r"(order-\d+)"
RUN = {
  "data.split": "last_documents",
  "data.validation_fraction": 0.2,
  "data.test_fraction": 0.0,
  "data.repeats": "weight",
  "data.window": 40,
  "train.batch_size": 16,
  "detect.folds": 2,
  "detect.rate": 0.02,
  "detect.events": "none",
}
LOG = {
  **RUN,
  "detect.rate": 0.05,
  "train.epochs": 30,
  "data.unit": "log",
  "data.log_format": "time",
  "data.log_session": SESSION,
}


@pytest.fixture(scope="module")
def session():
  """A cluster of two workers, which read parts of a few lines."""
  builder = SparkSession.builder.master("local-cluster[2,1,1024]")
  for name, value in {
    "spark.driver.memory": "512m",
    "spark.ui.enabled": False,
    "spark.ui.showConsoleProgress": False,
    "spark.log.level": "OFF",
    "spark.task.maxFailures": 1,
    "spark.sql.files.maxPartitionBytes": 8000,
    "spark.sql.files.openCostInBytes": 1000,
    "spark.sql.shuffle.partitions": 3,
    "spark.sql.adaptive.enabled": False,
    "spark.executorEnv.XLA_FLAGS": "",
  }.items():
    builder = builder.config(name, value)
  spark_session.use_this_python()
  with builder.getOrCreate() as session:
    yield session


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
  """A log in three rotated parts, with lines that are no entries."""
  folder = tmp_path_factory.mktemp("shop")
  shop_log.main([str(folder / "all.log"), "--orders=240"])
  rng, lines = random.Random(1), []
  every = (folder / "all.log").read_text().splitlines()
  for line in every[len(every) // 10 : -len(every) // 5]:
    lines.append(line)
    if rng.random() < 0.3:
      name = line.split()[4]
      lines += ["", f"  at shop.Order({name})", f"Caused by: caf\u00e9 {name}"]
  logs = folder / "logs"
  logs.mkdir()
  third = len(lines) // 3
  for n, name in enumerate(("app.log.2", "app.log.1", "app.log")):
    some = lines[third * n : third * (n + 1)]
    (logs / name).write_bytes("\r\n".join([*some, ""]).encode())
  # A mark of the byte order, and events before the first time.
  early = "\r\n".join(["order-99999 left", "order-99999 over", ""])
  content = (logs / "app.log.2").read_bytes()
  (logs / "app.log.2").write_bytes(b"\xef\xbb\xbf" + early.encode() + content)
  return folder


@pytest.fixture(scope="module")
def trained(shop):
  """A run of the log, and its detector."""
  config = tiny(shop, {**LOG, "data.path": str(shop / "all.log")})
  train.fit(experiments.build, config, shop / "run")
  config.detect.path = str(shop / "logs")
  return (
    config,
    shop / "run",
    detect.run(experiments.build, config, shop / "run"),
  )


def compare(workdir, output):
  """Holds the tables of Spark against those of one machine."""
  import pyarrow.parquet as pq

  def same(text, value):
    if isinstance(value, float):
      return float(text) == pytest.approx(value, rel=1e-5)
    return text == ("" if value is None else str(value))

  for table, key in (("sessions", "session"), ("incidents", "incident")):
    written = read_csv(workdir / f"detect/{table}.csv")
    expected = {row[key]: row for row in written}
    rows = pq.read_table(output / table).to_pylist()
    assert {str(row[key]) for row in rows} == set(expected) and expected
    assert len(rows) == len(expected)
    for row in rows:
      for name, text in expected[str(row[key])].items():
        # Baselines that are not combined are not computed.
        assert name not in row or same(text, row[name]), (row, name, text)


@pytest.mark.usefixtures("session")
def test_verdicts_and_incidents_of_a_log(trained, capsys):
  config, workdir, one = trained
  assert 0 < one.decision.flags[one.distinct.which].sum() < 60
  assert not all(np.concatenate(one.sessions.whole))
  config.detect.engine = "spark"
  found = detect.run(experiments.build, config, workdir)
  said = capsys.readouterr().out.splitlines()[-1]
  assert said.endswith(summary(one)) and found.decision.flags.all()
  compare(workdir, workdir / "detect-spark")


@pytest.fixture(scope="module")
def tables(shop):
  """Two tables of a machine's sessions, and a run of one of them."""
  folder, rng = shop / "tables", random.Random(0)
  folder.mkdir()
  for file in ("a.csv", "b.csv"):
    rows, clock = ["session,event,timestamp"], 1.7e9
    waiting = {f"s{n}": walk(rng).split()[::-1] for n in range(200)}
    while waiting:  # At most nine sessions are open.
      name = rng.choice([*waiting][:9])
      clock += rng.random()
      rows.append(f"{name},{waiting[name].pop()},{clock:.3f}")
      if not waiting[name] or rng.random() < 0.01:
        del waiting[name]
    (folder / file).write_text("\n".join(rows))
  fields = {**RUN, "data.unit": "session", "data.format": "csv"}
  # With this seed no score is so near a rounding that last bits decide.
  fields |= {"detect.rate": 0.2, "seed": 1}
  config = tiny(folder, {**fields, "data.path": str(folder / "a.csv")})
  train.fit(experiments.build, config, shop / "table-run")
  config.detect.path = str(folder)
  detect.run(experiments.build, config, shop / "table-run")
  return config, shop / "table-run"


@pytest.mark.usefixtures("session")
def test_verdicts_of_tables(tables):
  config, workdir = tables
  config.detect.engine = "spark"
  detect.run(experiments.build, config, workdir)
  compare(workdir, workdir / "detect-spark")


def test_a_mistake_is_one_line(session, tmp_path):
  path = tmp_path / "a.csv"
  data = tiny(tmp_path, {"data.unit": "session", "data.format": "csv"}).data
  path.write_bytes(b"session,event\n1,a\n1,\xff\n")
  message = "^[^\n]*a.csv: byte 20 is not UTF-8[^\n]*$"
  with pytest.raises(UserError, match=message), spark_session.reporting():
    read.read_events(session, data, str(path))


def test_times_without_a_year_are_those_of_one_machine(session, tmp_path):
  """Of a log around the present day, which is therefore of another year."""
  (tmp_path / "logs").mkdir()
  now = datetime.now(UTC)
  for name, days in (("a.log", range(20, 60)), ("a.log.1", range(-60, 20))):
    dates = (now + timedelta(days=day) for day in days)
    lines = (f"{date:%b %d %H:%M:%S} host su: x{date:%d}" for date in dates)
    (tmp_path / "logs" / name).write_text("\n".join(["x0 up", *lines]))
  fields = {"unit": "log", "log_format": "syslog", "log_session": r"(x\d+)"}
  fields["path"] = str(tmp_path / "logs")
  data = tiny(tmp_path, {f"data.{k}": v for k, v in fields.items()}).data
  corpus = corpora.read_corpus(data)
  end = np.nanmax(corpus.seconds)
  assert now.timestamp() - 330 * 86400 < end < now.timestamp()
  assert end - np.nanmin(corpus.seconds) == pytest.approx(119 * 86400)
  with spark_session.whole_files(session):
    events = read.read_events(session, data, fields["path"])
    rows = events.frame.toPandas()
  assert (events.span.begin, events.span.end) == (end - 119 * 86400, end)
  np.testing.assert_array_equal(
    np.sort(rows["time"].to_numpy(float)), np.sort(corpus.seconds)
  )
  # Of a line before the first time, it is the time of the next one.
  early = rows["time"].isna()
  assert early.sum() == 2 and (rows["at"] == rows["rank"])[early].all()


def equal_verdicts(rows, one):
  """Holds ended sessions of a stream against those of one machine.

  Returns the number of those that one machine has examined as they are.
  """
  last = {row["session"]: row for row in rows}
  begins, _ = one.sessions.whole
  which, sizes = one.distinct.which, np.diff(one.sessions.bounds)
  place = {name: j for j, name in enumerate(one.sessions.names)}
  same = 0
  for name, row in last.items():
    j = place[name]
    d = which[j]
    if row["events"] == sizes[j] and one.sessions.whole[1][j]:
      same += 1
      assert row["cut"] == (not begins[j]), row
      assert row["flag"] == one.decision.flags[d], row
      assert row["p_value"] == pytest.approx(one.decision.p[d], rel=1e-5), row
      for score, values in one.decision.scores.items():
        if score in row:
          assert row[score] == pytest.approx(values[d], 1e-5, 1e-5)
  return same


def test_verdicts_of_a_followed_log(session, shop, trained, tmp_path):
  config, workdir, one = trained
  deployed = engine.restore(experiments.build, config, workdir)
  (tmp_path / "logs").mkdir()
  # The second query resumes from the state of the first one.
  for names in (["app.log.2"], ["app.log.1", "app.log"]):
    for name in names:
      shutil.copy(shop / "logs" / name, tmp_path / "logs")
    query = engine.start(
      session,
      deployed,
      str(tmp_path / "logs"),
      str(tmp_path / "out"),
      {"availableNow": True},
    )
    query.awaitTermination()
  frame = session.read.parquet(str(tmp_path / "out/sessions"))
  rows = [row.asDict() for row in frame.collect()]
  same = equal_verdicts(rows, one)
  assert [r["events"] for r in rows if r["session"] == "order-99999"] == [2]
  # The other sessions are open: the log ends before their silence is over.
  assert 0.4 * len(one.sessions.names) < same <= len(rows)
