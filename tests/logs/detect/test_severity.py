"""The severity of alarms counts three signs."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from configs import base
from seqrnn.logs.detect import severity
from seqrnn.logs.detect.baselines import BASELINES
from seqrnn.logs.detect.conformal import Calibration, CrossCalibration
from seqrnn.logs.detect.detector import SCORES
from seqrnn.logs.detect.findings import Verdicts
from seqrnn.scoring.scoring import UNRANKED


def test_severity_counts_signs():
  settings: Any = base.get_config().detect
  settings.rate = 0.02
  sessions = [  # p, models above, unknown, flagged of 8 events -> severity.
    (0.01, 2, 0, 1, "medium"),
    (0.011, 2, 0, 1, "low"),
    (0.01, 1, 0, 1, "low"),
    (0.02, 0, 1, 1, "medium"),
    (0.02, 0, 0, 2, "medium"),
    (0.01, 4, 0, 2, "high"),
    (0.01, 4, 1, 2, "high"),
    (0.5, 4, 1, 2, ""),
    (np.nan, 4, 1, 2, "low"),  # Short.
  ]
  p, models, unknown, flagged, expected = map(
    np.array, zip(*sessions, strict=True)
  )
  D, short = len(sessions), np.isnan(p)
  place = np.tile(np.arange(8), (D, 1))
  groups = [Calibration(np.array([0.0, 1.0]))] * 4
  normal: Any = SimpleNamespace(
    scores={"combined": CrossCalibration(groups)},
    combined=lambda _: 1.0 + (np.arange(4)[:, None] < models),
    choice=SimpleNamespace(combination=(("max", "mean"), "min")),
  )
  scored: Any = SimpleNamespace(
    bounds=8 * np.arange(D + 1),
    rank=np.where(place < unknown[:, None], UNRANKED, 1).ravel(),
    scores={},
    short=short,
  )
  verdicts = Verdicts(
    scores={"max": np.arange(D), "mean": np.full(D, 2.5)},
    p=p,
    event_p=np.ones(8 * D),
    flags=(p < 0.5) | short,
    event_flags=(place < flagged[:, None]).ravel(),
    combined_KD=np.zeros((1, D)),
  )
  lengths = np.full(D, 8)
  found = severity.explain(scored, verdicts, lengths, normal, settings)
  assert [severity.NAMES[n] for n in found.severity] == expected.tolist()
  assert found.models.tolist() == np.where(short, 0, models).tolist()
  assert found.reasons == ["mean"] * 3 + ["max"] * 4 + ["", "short"]


def test_a_model_without_normal_sessions_does_not_agree():
  groups = [Calibration(np.array(scores)) for scores in ([1.0, 2.0], [])]
  beyond = CrossCalibration(groups).beyond(np.array([[2.0, 3.0], [9.0, 9.0]]))
  assert beyond.tolist() == [0, 1]


def test_every_score_has_words():
  assert severity.WORDS.keys() == {
    *(*SCORES, *BASELINES, severity.SHORT, severity.EVENT)
  }
