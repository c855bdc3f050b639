"""Metrics of a detection against labels: the content of report.json."""

import zlib
from typing import Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs import anomalies
from seqrnn.data.logs import sessions as data
from seqrnn.logs.detect import ranking
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.conformal import is_flagged
from seqrnn.logs.detect.findings import Findings


def evaluate(
  found: Findings,
  normal: NormalScores,
  kinds: np.ndarray | None,
  settings: Config,
) -> dict[str, Any]:
  """The metrics in report.json.

  Args:
    found: by the detection.
    normal: scores of normal sessions.
    kinds: kind of anomaly injected into each session; None if none is.
    settings: of `config.detect`.
  """
  by_kind = None if kinds is None else precision_by_kind(found, kinds)
  labels = found.sessions.line_labels
  return {
    "figures": metrics_by_score(found, normal, settings),
    "average_precision_by_kind": by_kind,
    "events": None if labels is None else event_metrics(found, labels),
  }


def summary(found: Findings) -> dict[str, int]:
  """Numbers of the examined sessions and events, and their checksum."""
  sessions, distinct = found.sessions, found.distinct
  return {
    "sessions": len(distinct.which),
    "distinct_sessions": len(found.p),
    "events_scored": int(np.diff(found.bounds) @ distinct.counts),
    "distinct_events_scored": len(found.nll),
    "flagged_for_their_length": int(found.short[distinct.which].sum()),
    "crc32": zlib.crc32(
      sessions.bounds.tobytes(), zlib.crc32(sessions.ids.tobytes())
    ),
  }


def metrics_by_score(
  found: Findings, normal: NormalScores, settings: Config
) -> dict[str, dict[str, Any]]:
  """Metrics of each score at `detect.rate`, and of another `detect.rule`.

  They are computed from the labelled sessions, and only if both labels occur.
  """
  which, labels = found.distinct.which, found.sessions.labels
  labelled = found.sessions.with_label()

  def row(scores: np.ndarray, flags: np.ndarray) -> dict[str, Any]:
    metrics = {}
    if labels is not None and 0 < labels[labelled].sum() < len(labelled):
      metrics = _session_metrics(
        scores, flags, labels[labelled], which[labelled], settings
      )
    return {"flagged": int(flags[which].sum()), **metrics}

  table = {}
  if settings.rule != "rate":
    table[f"rule {settings.rule}"] = row(found.scores[COMBINED], found.flags)
  for name, scores in found.scores.items():
    # The score is -log p, beyond the resolution of the p-values if it is the
    # highest; of sessions that are flagged for their length it is infinity.
    p = np.maximum(np.exp(-scores), normal.scores[name].resolution)
    flags = is_flagged(p, settings.rate) | np.isposinf(scores)
    table[name] = row(scores, flags)
  return table


def _session_metrics(
  scores: np.ndarray,
  flags: np.ndarray,
  labels: np.ndarray,
  which: np.ndarray,
  settings: Config,
) -> dict[str, Any]:
  """Metrics over all sessions, and over distinct sessions.

  Args:
    scores: of the distinct sessions [D].
    flags: of the distinct sessions [D].
    labels: of the sessions.
    which: index of the distinct session that each session equals.
    settings: of `config.detect`.
  """
  counts = ranking.tally(scores[which], flags[which], labels)
  _, first = np.unique(2 * which + labels, return_index=True)
  once = which[first]
  rng = np.random.default_rng(0)
  return {
    **ranking.metrics(counts),
    "intervals": ranking.intervals(counts, settings.bootstrap, rng),
    "distinct": ranking.metrics(
      ranking.tally(scores[once], flags[once], labels[first])
    ),
  }


def precision_by_kind(
  found: Findings, kinds: np.ndarray
) -> dict[str, dict[str, float]]:
  """Average precision of each score for each kind of injected anomaly.

  The sessions of one kind are compared with the normal sessions alone.
  """
  which = found.distinct.which
  table = {}
  for name, scores in found.scores.items():
    table[name] = {}
    # With few sessions, some kinds may not occur.
    for kind in (kind for kind in anomalies.KINDS if kind in kinds):
      some = (kinds == kind) | (kinds == "")
      anomalous = kinds[some] != ""
      flags = np.zeros(len(anomalous), bool)
      counts = ranking.tally(scores[which][some], flags, anomalous)
      table[name][kind] = ranking.metrics(counts)["average_precision"]
  return table


def event_metrics(
  found: Findings, labels: np.ndarray
) -> dict[str, float] | None:
  """Metrics of surprisal for events; None unless both labels occur.

  Args:
    found: by the detection.
    labels: of all events [events of the sessions].
  """
  which, sessions = found.distinct.which, found.sessions
  starts, stops = found.bounds[which], found.bounds[which + 1]
  index, _ = data.ranges(starts, stops)
  first = sessions.bounds[:-1] + found.offsets[which]
  place, _ = data.ranges(first, first + stops - starts)
  # The end symbol is not an event of a file, so it has no label.
  known = place < np.repeat(sessions.bounds[1:], stops - starts)
  if sessions.lines_labelled is not None:
    known[known] = sessions.lines_labelled[place[known]]
  index, labels = index[known], labels[place[known]]
  if labels.all() or not labels.any():
    return None
  counts = ranking.tally(found.nll[index], found.event_flags[index], labels)
  return ranking.metrics(counts)
