"""One decision: flags, severity and reasons of sessions by arrays."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seqrnn.configs import base
from seqrnn.logs.detect import findings
from seqrnn.logs.detect.conformal import Calibration, CrossCalibration
from seqrnn.logs.detect.detector import SessionScores
from seqrnn.logs.detect.scores import BASELINES, EVENT, NETWORK, SHORT, WORDS
from seqrnn.scoring.scoring import UNRANKED


def test_severity_counts_signs():
  """Of 99 normal sessions of four models each, whose scores are 1 to 99."""
  settings: Any = base.get_config().detect
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
  calibration = CrossCalibration([Calibration(np.arange(1.0, 100))] * 4)
  normal: Any = SimpleNamespace(
    scores={"combined": calibration, "max": calibration, "mean": calibration},
    events=CrossCalibration([Calibration(np.arange(999) / 10)] * 4),
    combined=lambda scores: scores["max"],
    choice=SimpleNamespace(combination=(("mean", "max"), "min")),
  )
  nll_N = np.where(place < flagged[:, None], 100.0, 1).ravel()
  scored = SessionScores(
    nll=nll_N,
    rank=np.where(place < unknown[:, None], UNRANKED, 1).ravel(),
    member_nll=np.tile(nll_N, (4, 1)),
    targets=np.zeros(8 * D, int),
    bounds=8 * np.arange(D + 1),
    scores={"max": score_KD, "mean": np.where(score_KD == 100, 98, 99.5)},
    counts=np.ones(D, int),
    short=short,
    lengths=np.full(D, 8),
    seconds=0.0,
  )
  decided = findings.decide(scored, normal, settings)
  assert [findings.SEVERITIES[n] for n in decided.severity] == list(columns[3])
  assert decided.flags.tolist() == [*[True] * 7, False, True]
  assert decided.models.tolist() == [2, 0, 1, 0, 0, 4, 4, 0, 0]
  assert decided.flagged_events.tolist() == flagged.tolist()
  assert decided.unknown_events.tolist() == unknown.tolist()
  assert decided.p[:2] == pytest.approx([3 / 397, 9 / 397])
  expected = ["max", "mean", "mean", "mean", "mean", "max", "max"]
  assert decided.reasons == [*expected, "", "short"]
  settings.rule = "events"
  by_event = findings.decide(scored, normal, settings)
  assert by_event.reasons == [*["event"] * 8, "short"]


def test_a_model_without_normal_sessions_does_not_agree():
  groups = [Calibration(np.array(scores)) for scores in ([1.0, 2.0], [])]
  beyond = CrossCalibration(groups).beyond(np.array([[2.0, 3.0], [9.0, 9.0]]))
  assert beyond.tolist() == [0, 1]


def test_every_score_has_words():
  assert WORDS.keys() == {*(*NETWORK, *BASELINES, SHORT, EVENT)}
