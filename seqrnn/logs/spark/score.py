"""Sessions to verdicts, in Spark's Python workers.

A worker restores the detector once, from a broadcast, and scores many sessions
at once with the functions of one machine.
"""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import functools
import importlib
import os
import pickle
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import lit, pmod, xxhash64

from seqrnn.data.logs import rotation
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.read.columns import Texts
from seqrnn.logs.detect import tables
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.detector import whole_sessions
from seqrnn.logs.detect.findings import Findings, find_anomalies
from seqrnn.logs.detect.scores import COMBINED, NETWORK
from seqrnn.logs.spark.read import Events, Span
from seqrnn.runtime import compiled, private, sharding

_EVENTS = 2**17  # The mean number of events that are scored together.
# A task has one core, however many the machine has.
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"
# The columns of `session_rows`; `key` is the name of a session without masks.
_VERDICT = (
  "key string, session string, events bigint, open int, cut int,"
  " p_value double, flag int, severity string, incident int, reason string,"
  " score string, models int, unknown_events int, flagged_events int,"
  " first_alarm int, file string, line bigint, timestamp string"
)


class Shipped(NamedTuple):
  """A detector that is sent to the workers.

  Attributes:
    content: a broadcast variable of the detector as bytes.
    columns: of the verdicts, each with its type.
  """

  content: Broadcast
  columns: list[str]


def ship(session: SparkSession, deployed: Deployed) -> Shipped:
  """Sends a detector to the workers."""
  detector = deployed.detector
  models = jax.tree.map(np.asarray, detector.models)
  content = private.pickled(
    (
      deployed._replace(detector=None),
      detector._replace(experiment=None, models=models),
      detector.experiment.vocabularies,
    )
  )
  scores = dict.fromkeys(
    (COMBINED, *NETWORK, *detector.measures, *detector.fitted[0])
  )
  columns = [*_VERDICT.split(", "), *(f"{name} double" for name in scores)]
  return Shipped(session.sparkContext.broadcast(content), columns)


@functools.lru_cache(maxsize=1)  # A process restores a detector once.
def _restore(content: bytes) -> Deployed:
  """The detector that `ship` has packed."""
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  flags = os.environ.get("XLA_FLAGS", "")
  os.environ["XLA_FLAGS"] = f"{flags} {_ONE_THREAD}"
  compiled.enable_cache()
  deployed, detector, vocabularies = pickle.loads(content)
  # Nothing here imports a task; a worker must build the one of the run.
  build = importlib.import_module("seqrnn.experiments").build
  config = whole_sessions(deployed.config, vocabularies)
  place = sharding.replicated(sharding.mesh())
  detector = detector._replace(
    experiment=build(config, vocabularies),
    models=jax.device_put(detector.models, place),
  )
  return deployed._replace(detector=detector)


def score_events(
  session: SparkSession, events: Events, deployed: Deployed
) -> DataFrame:
  """The verdicts on the sessions of a log."""
  # If the clock is not the training's, no session is cut.
  span = events.span if events.span.clock == deployed.cut.clock else Span()
  shipped = ship(session, deployed)
  groups = max(session.sparkContext.defaultParallelism, events.count // _EVENTS)
  group = pmod(xxhash64("session"), lit(groups)).alias("group")
  return events.frame.groupBy(group).applyInPandas(
    lambda some: _score(some, shipped, span), ", ".join(shipped.columns)
  )


def _score(events: pd.DataFrame, shipped: Shipped, span: Span) -> pd.DataFrame:
  """The verdicts on some sessions, of which all events are there."""
  findings, names = examine(_restore(shipped.content.value), events, span)
  rows = pd.DataFrame(tables.session_rows(findings), dtype=object)
  columns = [column.split()[0] for column in shipped.columns]
  return rows.assign(key=names).reindex(columns=columns).astype(object)


def score_ended(
  frames: Iterable[pd.DataFrame], shipped: Shipped, span: Span
) -> Iterator[pd.DataFrame]:
  """The verdicts on ended sessions; `events` has a list of those of each."""
  for frame in frames:
    if events := list(chain.from_iterable(frame["events"])):
      yield _score(pd.DataFrame(events), shipped, span)


def examine(
  deployed: Deployed, events: pd.DataFrame, span: Span
) -> tuple[Findings, list[str]]:
  """Scores sessions; returns the findings, and the names without masks.

  Sessions are in the order of their first events.

  Args:
    deployed: the detector.
    events: the columns `read.COLUMNS`, in any order.
    span: of the log.
  """
  files = sorted(set(events["file"]), key=lambda x: (*rotation.age(x), x))
  of_file = events["file"].map(files.index)
  order = np.lexsort((events["place"], of_file, events["rank"]))
  events = events.iloc[order]
  codes, names = pd.factorize(events["session"])
  events = events.iloc[np.argsort(codes, kind="stable")]
  symbols, files, timestamps = (
    _texts(pd.Series(events[name])) for name in ("symbol", "file", "timestamp")
  )
  lines = events["line"].to_numpy(float)
  sessions = Sessions.of_events(
    deployed.detector.names,
    symbols,
    np.append(0, np.cumsum(np.bincount(codes))),
    list(names),
    lines=None if np.isnan(lines).any() else lines.astype(np.int64),
    timestamps=timestamps if any(timestamps.symbols) else None,
    files=files if any(files.symbols) else None,
    seconds=events["time"].to_numpy(float),
    values=np.array([*events["values"]], np.float32),
  )
  if span.clock:
    clock = events["line" if span.clock == "lines" else "time"]
    clock, starts = clock.to_numpy(float), sessions.bounds[:-1]
    begins, ends = deployed.cut.whole(
      *(symbols, sessions.bounds),
      np.fmin.reduceat(clock, starts) - span.begin,
      span.end - np.fmax.reduceat(clock, starts),
    )
    sessions = sessions._replace(begins=begins, ends=ends)
  sessions = sessions.without(deployed.accepted, deployed.detector.names)
  findings = find_anomalies(deployed.detector, deployed.normal, sessions)
  return findings, sessions.names


def _texts(column: pd.Series) -> Texts:
  """A column of texts, empty where there is none."""
  codes, symbols = pd.factorize(column.fillna(""))
  return Texts(list(symbols), codes)
