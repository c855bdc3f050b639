"""Which sessions calibrate: all but those that a person or cleaning leaves out.

A person's answers overrule the cleaning: anomalous sessions are left out, and
normal ones stay, whatever the cleaning finds. The answers do not change what it
finds. Without the sessions that are known to be anomalous, a second mode may
have too few sessions to be found: a first answer would then put the other
sessions of the mode back into the calibration.
"""

from typing import Any, NamedTuple

import numpy as np

from seqrnn.errors import UserError
from seqrnn.logs.detect import cleaning

UNANSWERED, NORMAL, ANOMALOUS = 0, 1, 2


class Selection(NamedTuple):
  """The sessions that calibrate, among the R rows of calibration.npz.

  Attributes:
    kept: bool [R], whether a session calibrates.
    counts: number of sessions equal to each [R].
    answers: NORMAL, ANOMALOUS or UNANSWERED [R].
    log_p: of `Cleaning`.
  """

  kept: np.ndarray
  counts: np.ndarray
  answers: np.ndarray
  log_p: float | None

  def answered(self, answer: int) -> int:
    """The number of sessions with an answer, equal ones included."""
    return int(self.counts[self.answers == answer].sum())

  @property
  def left_out(self) -> int:
    """The number of sessions that do not calibrate."""
    return int(self.counts[~self.kept].sum())

  @property
  def cleaned(self) -> int:
    """The number of sessions that cleaning leaves out."""
    return self.left_out - self.answered(ANOMALOUS)

  def record(self) -> dict[str, Any]:
    """The part of report.json on the sessions that are left out."""
    return {
      "left_out": self.left_out,
      "answered_normal": self.answered(NORMAL),
      "answered_anomalous": self.answered(ANOMALOUS),
      "log_p_of_one_mode": self.log_p,
    }


def select(
  arrays: dict[str, np.ndarray],
  contamination: float,
  answers: np.ndarray | None,
) -> Selection:
  """Selects the sessions that calibrate.

  Args:
    arrays: of calibration.npz.
    contamination: as `detect.contamination`.
    answers: of the rows [R]; None: there are none.

  Raises:
    UserError: no session of a model is left.
  """
  counts, model = arrays["counts"], arrays["model"]
  if answers is None:
    answers = np.full(len(counts), UNANSWERED)
  cleaned = cleaning.clean(
    arrays["score max"],
    counts,
    model,
    # The surprisal of an unknown event is a setting, not a measurement.
    arrays["score unknown"] == 0,
    contamination,
  )
  left_out = cleaned.left_out & (answers != NORMAL) | (answers == ANOMALOUS)
  if len(np.unique(model[~left_out])) < len(np.unique(model)):
    raise UserError(
      f"review.csv, detect.contamination={contamination:g}: leave no session of"
      " a fold for its calibration"
    )
  return Selection(~left_out, counts, answers, cleaned.log_p)
