"""One decision: flags, severity and reasons of sessions by arrays."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seqrnn.configs import base
from seqrnn.logs.detect.conformal import Calibration, CrossCalibration
from seqrnn.logs.detect.detector import SessionScores
from seqrnn.logs.detect.findings import SEVERITIES, decide
from seqrnn.logs.detect.normal import NormalSessions, normal_scores
from seqrnn.scoring.scorer import UNRANKED


def scores_of(nll, rank, bounds, scores, counts=None, short=None):
  """Scores by models of equal surprisals; `scores` are the highest ones."""
  nll, rank, bounds = map(np.asarray, (nll, rank, bounds))
  models, count = np.atleast_2d(scores).shape
  return SessionScores(
    nll=nll,
    rank=rank,
    member_nll=np.tile(nll, (models, 1)),
    targets=rank,
    bounds=bounds,
    scores={"max": np.atleast_2d(scores), "unknown": np.zeros((models, count))},
    counts=np.ones(count, int) if counts is None else np.asarray(counts),
    short=np.zeros(count, bool) if short is None else short,
    lengths=np.diff(bounds),
  )


@pytest.fixture
def settings() -> Any:
  return base.get_config().detect


def normal_of(scores, nll, settings):
  """Normal sessions with one event each, the last with the others."""
  bounds = np.append(np.arange(len(scores)), len(nll))
  part = scores_of(nll, np.ones(len(nll), int), bounds, scores)
  settings.update({"scores": "max", "contamination": 0.0})
  return normal_scores(NormalSessions.of_scores(part, 0, [1]), settings)


def test_severity_counts_signs(settings):
  """Of 99 normal sessions of four models each, whose scores are 1 to 99."""
  settings.rate = 0.04
  sessions = [  # Score by each model, unknown, flagged of 8 events -> severity.
    ([100, 100, 99, 99], 0, 1, "medium"),
    ([98, 98, 98, 98], 0, 1, "low"),  # p is more than half of the rate.
    ([100, 99, 99, 99], 0, 1, "low"),  # One model alone.
    ([97, 97, 97, 97], 1, 1, "medium"),
    ([97, 97, 97, 97], 0, 2, "medium"),
    ([100] * 4, 0, 2, "high"),
    ([100] * 4, 1, 2, "high"),
    ([1] * 4, 1, 2, ""),
    ([np.inf] * 4, 1, 2, "low"),  # Short.
  ]
  columns = list(zip(*sessions, strict=True))
  score_KD = np.array(columns[0], float).T
  unknown, flagged = np.array(columns[1]), np.array(columns[2])
  D, short = len(sessions), np.isinf(score_KD[0])
  place = np.tile(np.arange(8), (D, 1))
  scored = scores_of(
    np.where(place < flagged[:, None], 100.0, 1).ravel(),
    np.where(place < unknown[:, None], UNRANKED, 1).ravel(),
    8 * np.arange(D + 1),
    score_KD,
    short=short,
  )
  scored.scores["mean"] = np.where(score_KD == 100, 98, 99.5)
  one = CrossCalibration([Calibration(np.arange(1.0, 100))] * 4)
  normal: Any = SimpleNamespace(
    scores=dict.fromkeys(("combined", "max", "mean", "unknown"), one),
    events=CrossCalibration([Calibration(np.arange(999) / 10)] * 4),
    evidence=lambda scores: scores["max"][None],
    names=("mean", "max"),
  )
  decided = decide(scored, normal, settings)
  assert [SEVERITIES[n] for n in decided.severity] == list(columns[3])
  assert decided.flags.tolist() == [*[True] * 7, False, True]
  assert decided.models.tolist() == [2, 0, 1, 0, 0, 4, 4, 0, 0]
  assert decided.flagged_events.tolist() == flagged.tolist()
  assert decided.unknown_events.tolist() == unknown.tolist()
  assert decided.p[:2] == pytest.approx([3 / 397, 9 / 397])
  expected = ["max", "mean", "mean", "mean", "mean", "max", "max"]
  assert decided.reasons == [*expected, "", "short"]
  settings.rule = "events"
  by_event = decide(scored, normal, settings)
  assert by_event.reasons == [*["event"] * 8, "short"]


def test_an_event_never_seen_is_flagged_whatever_its_surprisal(settings):
  scored = scores_of([1.0, 20, 2], [1, UNRANKED, 3], [0, 2, 3], np.zeros(2))
  # Calibration met unknown events itself: no surprisal is above the threshold.
  normal = normal_of(np.zeros(9), np.full(2000, 20.0), settings)
  flags = decide(scored, normal, settings).event_flags
  assert flags.tolist() == [False, True, False]


@pytest.mark.parametrize("rule", ["rate", "events", "budget", "bh", "topk"])
def test_rules(rule, settings):
  rng = np.random.default_rng(0)
  settings.update({"rule": rule, "budget": 7, "top_k": 3, "rate": 0.1})
  sizes = rng.integers(0, 6, 80)
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  nll, rank = rng.exponential(2, sizes.sum()), rng.integers(1, 5, sizes.sum())
  combined, counts = rng.exponential(2, 80), rng.integers(1, 3, 80)
  short = np.arange(80) == 4
  scored = scores_of(nll, rank, bounds, combined, counts, short)
  normal, normal_nll = rng.exponential(1, 200), rng.exponential(1, 1000)
  decided = decide(scored, normal_of(normal, normal_nll, settings), settings)
  flags, event_flags = decided.flags, decided.event_flags.tolist()
  p = (1 + (normal >= combined[:, None]).sum(axis=1)) / 201
  # Beyond all normal ones p is that of the highest, or the next.
  assert (np.abs(decided.p - p)[~short] < 1.01 / 201).all()
  p = np.where(short, p, decided.p)
  higher = normal_nll.round(4) >= nll.round(4)[:, None]
  expected = (1 + higher.sum(axis=1)) / 1001 <= (
    0.1 if rule == "events" else 0.001
  )
  expected = rank > 3 if rule == "topk" else expected
  assert event_flags == expected.tolist()
  in_order = np.sort(np.repeat(p[~short], counts[~short]))
  under = in_order <= 0.1 * np.arange(1, len(in_order) + 1) / len(in_order)
  for d in range(80):
    flagged_events = any(event_flags[bounds[d] : bounds[d + 1]])
    expected = {
      "rate": p[d] <= 0.1,
      "events": flagged_events,
      "budget": (combined[~short] > combined[d]).sum() < 7,
      "bh": p[d] <= in_order[under].max(),
      "topk": flagged_events,
    }[rule]
    assert flags[d] == (expected or d == 4)
  assert 3 < flags.sum() < 77


def test_short_normal_sessions_have_no_part_in_a_calibration():
  nll, bounds = np.arange(5.0), np.array([0, 2, 3, 5])
  short, counts = np.array([False, True, False]), np.array([2, 9, 1])
  scores = np.array([1.0, np.inf, 4.0])
  part = scores_of(nll, nll, bounds, scores, counts, short)
  table = NormalSessions.concatenate(
    [NormalSessions.of_scores(part, k, [1, 2]) for k in range(2)]
  )
  assert table.scores["max"].tolist() == [1, 4] * 2
  for name, expected in (
    ("counts", [2, 1] * 2),
    ("model", [0, 0, 1, 1]),
    ("nll", [0, 1, 3, 4] * 2),
    ("event_counts", [2, 2, 1, 1] * 2),
  ):
    assert getattr(table, name).tolist() == expected, name
