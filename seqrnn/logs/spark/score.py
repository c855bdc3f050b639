"""Sessions to verdicts, in Spark's Python workers.

A worker restores the detector once, from a broadcast, and scores many sessions
at once, as one machine does.
"""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import importlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import cloudpickle

from seqrnn.data.logs.sessions import Sessions, ranges
from seqrnn.data.read.columns import Texts
from seqrnn.logs.detect import tables
from seqrnn.logs.detect.calibration import COMBINED
from seqrnn.logs.detect.decision import find_anomalies
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.detector import SCORES, Detector, whole_sessions
from seqrnn.logs.detect.findings import Findings
from seqrnn.runtime import compiled, sharding

EVENTS = 2**17  # That are scored together, at least.
# A task has one core, however many the machine has.
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"

_VERDICT = {
  "session": pa.string(),
  "events": pa.int64(),
  "open": pa.int32(),
  "cut": pa.int32(),
  "p_value": pa.float64(),
  "flag": pa.int32(),
  "severity": pa.string(),
  "incident": pa.int32(),
  "reason": pa.string(),
  "score": pa.string(),
  "models": pa.int32(),
  "unknown_events": pa.int32(),
  "flagged_events": pa.int32(),
  "first_alarm": pa.int32(),
  "file": pa.string(),
  "line": pa.int64(),
  "timestamp": pa.string(),
}
_CONTENT = pa.list_(
  pa.struct(
    [
      *(("symbol", pa.string()), ("id", pa.int32()), ("line", pa.int64())),
      *(("timestamp", pa.string()), ("file", pa.string())),
    ]
  )
)


class Span(NamedTuple):
  """From when to when a log goes, which decides the sessions that it cuts.

  Attributes:
    clock: "seconds" or "lines"; empty: no session is cut.
    begin: of the log.
    end: of the log.
  """

  clock: str = ""
  begin: float = 0.0
  end: float = 0.0


class Shipped(NamedTuple):
  """A detector on its way to the workers.

  Attributes:
    key: tells detectors apart.
    content: a broadcast variable of what `pack` returns.
  """

  key: str
  content: Any


def pack(deployed: Deployed) -> bytes:
  """A detector as bytes."""
  detector = deployed.detector
  models = jax.tree.map(np.asarray, detector.models)
  return cloudpickle.dumps(
    (
      deployed._replace(detector=None),
      detector._replace(experiment=None, models=models),
      detector.experiment.vocabularies,
    )
  )


def unpack(content: bytes) -> Deployed:
  """The detector that `pack` has packed."""
  deployed, detector, vocabularies = cloudpickle.loads(content)
  # Nothing here imports a task; a worker must build the one of the run.
  build = importlib.import_module("experiments").build
  config = whole_sessions(deployed.config, vocabularies)
  place = sharding.replicated(sharding.mesh())
  detector = detector._replace(
    experiment=build(config, vocabularies),
    models=jax.device_put(detector.models, place),
  )
  return deployed._replace(detector=detector)


_restored: dict[str, Deployed] = {}  # The one that this process scores with.


def restored(shipped: Shipped) -> Deployed:
  """The detector, which a process restores once."""
  if shipped.key not in _restored:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {_ONE_THREAD}"
    compiled.enable_cache()
    _restored.clear()
    _restored[shipped.key] = unpack(shipped.content.value)
  return _restored[shipped.key]


def schema(detector: Detector) -> pa.Schema:
  """Of the rows that `score` yields: the columns of sessions.csv, and content.

  The content is the events of a flagged session, each with its symbol, which
  may have masks, and its id in the vocabulary.
  """
  names = (COMBINED, *SCORES, *detector.fitted[0])
  scores = [(name, pa.float64()) for name in dict.fromkeys(names)]
  return pa.schema([*_VERDICT.items(), *scores, ("content", _CONTENT)])


def score(
  batches: Iterable[pa.RecordBatch],
  shipped: Shipped,
  span: Span,
) -> Iterator[pa.RecordBatch]:
  """Scores sessions, whose events stand together and in their order.

  Args:
    batches: session, symbol, line, time (in seconds), timestamp and file.
    shipped: the detector.
    span: of the log.
  """
  deployed = restored(shipped)
  for table in _whole_sessions(batches):
    found = find_sessions(deployed, table, span)
    yield verdicts(found, schema(deployed.detector))


def _whole_sessions(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
  """Yields tables of many sessions, none of which is in two tables."""
  held, count = [], 0
  for batch in batches:
    if not batch.num_rows:
      continue
    held.append(batch)
    count += batch.num_rows
    if count < EVENTS:
      continue
    names = batch.column("session")
    edges = _edges(names)
    first = int(edges[-2])  # Of the session that the next batch may continue.
    if first:
      held[-1] = batch.slice(0, first)
      yield pa.Table.from_batches(held)
      held = [batch.slice(first)]
      count = held[0].num_rows
    elif len(held) > 1 and held[-2].column("session")[-1] != names[0]:
      yield pa.Table.from_batches(held[:-1])
      held, count = [batch], batch.num_rows
  if held:
    yield pa.Table.from_batches(held)


def _edges(names: Any) -> np.ndarray:
  """Where the sessions of neighbouring rows begin, and the number of rows."""
  changes = pc.call_function("not_equal", [names[1:], names[:-1]])
  first = np.flatnonzero(changes.to_numpy(zero_copy_only=False)) + 1
  return np.concatenate([[0], first, [len(names)]])


def find_sessions(deployed: Deployed, table: pa.Table, span: Span) -> Findings:
  """Scores the sessions of a table as `score`."""
  [rows] = table.combine_chunks().to_batches()
  names = rows.column("session")
  bounds = _edges(names)
  first = names.take(pa.array(bounds[:-1])).to_pylist()
  columns = {name: rows.column(name) for name in rows.schema.names}
  sessions = sessions_of(deployed, first, bounds, columns)
  if span.clock:
    clock = "line" if span.clock == "lines" else "time"
    times = rows.column(clock).to_numpy(zero_copy_only=False).astype(float)
    begins, ends = cuts(deployed, sessions, times, span)
    sessions = sessions._replace(begins=begins, ends=ends)
  return find(deployed, sessions)


def find(deployed: Deployed, sessions: Sessions) -> Findings:
  """What a detection finds."""
  return find_anomalies(deployed.detector, deployed.normal, sessions)


def sessions_of(
  deployed: Deployed,
  names: list[str],
  bounds: np.ndarray,
  columns: dict[str, pa.Array],
) -> Sessions:
  """Sessions by the columns symbol, line, timestamp and file of their events.

  Lines are left out unless all are known.
  """
  symbols, timestamps, files = (
    _texts(columns[name]) for name in ("symbol", "timestamp", "file")
  )
  lines = columns["line"]
  return Sessions(
    deployed.detector.names.encode(symbols.symbols)[symbols.ids],
    bounds,
    names,
    None if lines.null_count else lines.to_numpy(),
    timestamps if any(timestamps.symbols) else None,
    as_read=symbols,
    files=files if any(files.symbols) else None,
  )


def cuts(
  deployed: Deployed, sessions: Sessions, times: np.ndarray, span: Span
) -> tuple[np.ndarray, np.ndarray]:
  """Whether each session has its begin and its end, as `data.cuts`."""
  assert isinstance(sessions.as_read, Texts)
  symbols, ids = sessions.as_read.symbols, sessions.as_read.ids
  starts, stops, idle = sessions.bounds[:-1], sessions.bounds[1:], deployed.cut
  before = np.array([idle.before(symbol) for symbol in symbols])
  after = np.array([idle.after(symbol) for symbol in symbols])
  # A session without any time is whole.
  since = np.fmin.reduceat(times, starts) - span.begin
  until = span.end - np.fmax.reduceat(times, starts)
  return (
    np.nan_to_num(since, nan=np.inf) >= before[ids[starts]],
    np.nan_to_num(until, nan=np.inf) >= after[ids[stops - 1]],
  )


def _texts(column: pa.Array) -> Texts:
  """A column of texts, empty where there is none."""
  encoded = column.fill_null("").dictionary_encode()
  return Texts(encoded.dictionary.to_pylist(), np.asarray(encoded.indices))


def verdicts(found: Findings, columns: pa.Schema) -> pa.RecordBatch:
  """Findings as rows, one for each session."""
  sessions, which = found.sessions, found.distinct.which
  distinct = {**tables.verdict_columns(found), **found.scores}
  places = sessions.bounds[:-1] + found.oddest()[which]
  of_sessions: dict[str, Any] = {"session": sessions.names}
  if sessions.lines is not None:
    of_sessions["line"] = sessions.lines[places]
  for name, texts in (
    ("timestamp", sessions.timestamps),
    ("file", sessions.files),
  ):
    if texts is not None:
      of_sessions[name] = [text or None for text in texts[places]]
  arrays = []
  for name, kind in zip(columns.names, columns.types, strict=True):
    if name == "content":
      array = _content(sessions, found.flags[which])
    elif name in of_sessions:
      array = pa.array(of_sessions[name], kind)
    elif name in distinct:
      values = pa.array(distinct[name], kind, from_pandas=name == "p_value")
      array = values.take(pa.array(which))
    else:
      array = pa.nulls(len(which), kind)
    arrays.append(array)
  return pa.RecordBatch.from_arrays(arrays, schema=columns)


def _content(sessions: Sessions, flags: np.ndarray) -> pa.Array:
  """The events of the flagged sessions, by the type `_CONTENT`."""
  starts, stops = sessions.bounds[:-1], sessions.bounds[1:]
  places, _ = ranges(starts[flags], stops[flags])
  columns = {
    "symbol": sessions.as_read,
    "id": sessions.ids,
    "line": sessions.lines,
    "timestamp": sessions.timestamps,
    "file": sessions.files,
  }
  arrays = []
  for field in _CONTENT.value_type:
    column = columns[field.name]
    if column is None:
      array = pa.nulls(len(places), field.type)
    elif isinstance(column, np.ndarray):
      array = pa.array(column[places], field.type)
    else:  # Few are distinct, and each may have to be masked.
      ids, index = np.unique(column.ids[places], return_inverse=True)
      texts = pa.array([column.symbols[n] for n in ids.tolist()], pa.string())
      array = texts.take(pa.array(index))
    arrays.append(array)
  sizes = np.where(flags, stops - starts, 0)
  return pa.ListArray.from_arrays(
    pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32()),
    pa.StructArray.from_arrays(arrays, fields=list(_CONTENT.value_type)),
    mask=pa.array(~flags),
  )
