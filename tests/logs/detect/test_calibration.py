"""Calibration: the sessions that calibrate, and how they are stored."""

import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seqrnn.configs import base
from seqrnn.data import splits
from seqrnn.data.documents import Document, collect
from seqrnn.data.logs import values
from seqrnn.data.read import stored
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.logs.detect import calibration
from seqrnn.logs.detect.detector import Member
from seqrnn.logs.detect.findings import higher_rate
from seqrnn.logs.detect.normal import (
  ANOMALOUS,
  NORMAL,
  UNANSWERED,
  NormalSessions,
  contaminates,
  normal_scores,
  of_every,
  select,
)
from seqrnn.logs.detect.scores import (
  BASELINES,
  COMBINED,
  NETWORK,
  STANDARD,
  fitted_names,
  round_scores,
)
from tests.data.test_splits import make_corpus, make_documents
from tests.logs.follow.test_follower import (
  make,
  random_texts,
  sessions_of,
  timed,
)


@pytest.fixture
def settings():
  settings = base.get_config().detect
  settings.contamination = 0.0
  return settings


def normal_of(rng, sizes=(80, 90)):
  """Normal sessions with an event each."""
  count = sum(sizes)
  counts = rng.integers(1, 4, count)
  return NormalSessions(
    scores={name: rng.exponential(size=count) for name in STANDARD},
    counts=counts,
    model=np.repeat(np.arange(len(sizes)), sizes),
    sizes=np.ones(count, np.int64),
    unknown=rng.random(count) < 0.1,
    nll=rng.exponential(size=count).astype(np.float32),
    event_counts=counts,
    order=rng.permutation(np.repeat(np.arange(count), counts)),
    steps=np.arange(len(sizes)),
    left=np.zeros(count, bool),
  )


def test_a_deployed_calibration_is_that_of_the_detection(settings):
  rng = np.random.default_rng(1)
  # All sessions of the second fold are too short to calibrate.
  known, false = normal_of(rng, (80, 0, 90)), normal_of(rng, (3, 0, 5))
  batch = normal_scores(known, settings, further=false)
  assert batch.scores[COMBINED].n == known.counts.sum() + false.counts.sum()
  sessions = np.bincount(batch.sessions.order)
  np.testing.assert_array_equal(sessions, batch.sessions.counts)
  again = NormalSessions.of_columns(batch.compact().columns())
  normal = of_every(again, batch.names)
  new = {name: rng.exponential(size=(3, 50)) for name in STANDARD}
  p = [
    n.scores[COMBINED].p_values(n.evidence(new).max(axis=0))
    for n in (batch, normal)
  ]
  np.testing.assert_array_equal(*p)
  nll = rng.choice(batch.sessions.nll, (3, 50)) + rng.choice([0, 1], 50)
  p = [n.events.p_values(map(round_scores, nll)) for n in (batch, normal)]
  np.testing.assert_array_equal(*p)


def test_a_higher_rate_is_named_where_anomalous_sessions_calibrate(settings):
  rng, settings.scores = np.random.default_rng(5), "max,mean,markov_5"
  known = normal_of(rng, (400, 400))
  # Of examined sessions with p = 1/100, 2/100, ..., the last one is short.
  neg_log_p = -np.log(np.arange(1, 101) / 100)
  neg_log_p[-1] = np.inf
  decision = SimpleNamespace(
    scores={COMBINED: neg_log_p}, flags=np.arange(100) > 98
  )
  which = SimpleNamespace(which=np.repeat(np.arange(100), 2))
  findings: Any = SimpleNamespace(decision=decision, distinct=which)
  normal = normal_scores(known, settings)
  assert higher_rate(findings, normal, settings) == []
  far = np.flatnonzero(known.counts == 1)[:20]
  for name in STANDARD:
    known.scores[name][far] += 12
  normal = normal_scores(known, settings)
  (line,) = higher_rate(findings, normal, settings)
  n = known.counts.sum()
  told = re.match(rf"calibration: (\d+) of {n:,} sessions look like", line)
  assert told and 10 < int(told[1]) <= 20
  rate = np.ceil(1000 * (int(told[1]) + 1) / (n + 1)) / 1000
  count = 2 * int(100 * rate) + 2
  assert f"detect.rate={rate:g} flags {count} sessions, not 2;" in line
  settings.rate = 0.05
  assert higher_rate(findings, normal, settings) == []


def test_single_sessions_far_above_the_others_are_left_out():
  rng = np.random.default_rng(3)
  known = normal_of(rng, (400, 400))
  far = np.zeros(800, bool)
  far[rng.permutation(800)[:9]] = True  # Too few for a second mode.
  for name in STANDARD:
    known.scores[name][far] += 12
  assert contaminates(known, 0.1).tolist() == far.tolist()
  assert not contaminates(known, 0.0).any()
  left = known._replace(left=far)  # By a first pass; one is called normal.
  answers = np.where(np.arange(800) == np.flatnonzero(far)[0], NORMAL, 0)
  selection = select(left, 0.1, answers)
  assert selection.calibrates.tolist() == (~far | (answers == NORMAL)).tolist()
  columns = left.columns()
  assert NormalSessions.of_columns(columns).left.tolist() == far.tolist()
  del columns["left"]  # As older versions write it.
  assert not NormalSessions.of_columns(columns).left.any()


def test_what_recurs_in_one_fold_alone_is_new_there():
  texts = ["ab"] * 100 + ["abc"] * 29 + ["abd"] * 30 + ["abe"] * 60
  fold_of = np.repeat([0, 1, 2, 0], [100, 29, 60, 30])
  recurs = calibration.recurring(sessions_of(texts), fold_of)
  # c is too rare, and e in two folds.
  assert np.flatnonzero(recurs).tolist() == [*range(129, 159)]


@pytest.mark.parametrize("contamination", [0.0, 0.2])
def test_anomalous_sessions_calibrate_as_if_they_were_not_there(
  settings, contamination
):
  rng = np.random.default_rng(0)
  settings.update({"contamination": contamination, "scores": "max,mean"})
  known = normal_of(rng, (150, 150))
  # A second mode, in both models.
  mode = np.zeros(300, bool)
  mode[rng.permutation(300)[:40]] = True
  known.scores["max"][mode] += 30
  answers = np.where(rng.random(300) < 0.2, ANOMALOUS, UNANSWERED)
  # Answers do not change what cleaning finds: the mode is left out, however
  # many of its sessions are known.
  answers[np.flatnonzero(mode)[:30]] = ANOMALOUS
  answers[np.flatnonzero(mode)[30:33]] = NORMAL
  normal = normal_scores(known, settings, answers)
  cleaned = mode & (answers == UNANSWERED) & bool(contamination)
  out, counts = (answers == ANOMALOUS) | cleaned, known.counts
  np.testing.assert_array_equal(normal.selection.calibrates, ~out)
  assert normal.selection.left_out == counts[out].sum()
  assert normal.selection.cleaned == counts[cleaned].sum()
  assert normal.selection.answered(NORMAL) == counts[answers == NORMAL].sum()
  without = known.take(~out)
  settings.contamination = 0.0
  expected = normal_scores(without, settings)
  index = np.cumsum(~out) - 1
  order = [index[n] for n in known.order if not out[n]]
  assert normal.sessions.order.tolist() == without.order.tolist() == order
  pairs = [(normal.events, expected.events)]
  pairs += [(normal.scores[n], expected.scores[n]) for n in expected.scores]
  for one, other in pairs:
    for group, same in zip(one.groups, other.groups, strict=True):
      np.testing.assert_array_equal(group.scores, same.scores)
      np.testing.assert_array_equal(group.above, same.above)
  with pytest.raises(UserError, match=r"^review.csv, detect.contam.*=0: leave"):
    select(known, 0.0, np.where(known.model == 1, ANOMALOUS, 0))


def test_a_damaged_archive_is_refused(tmp_path):
  path = tmp_path / "calibration.npz"
  stored.save_arrays(path, {"nll": np.zeros(3), "sizes": np.array([1, 2])})
  assert stored.load_arrays(path)["sizes"].tolist() == [1, 2]
  content, refused = path.read_bytes(), 0
  rule = f"^{path}: .*; run --mode=detect again$"
  for i in range(0, len(content), 5):
    path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
    try:  # Times of the archive's parts, say, may change.
      assert stored.load_arrays(path)["sizes"].tolist() == [1, 2]
    except UserError as error:
      assert re.search(rule, str(error), re.DOTALL), error
      refused += 1
  assert refused > len(content) // 20
  np.savez(path, nll=np.array([{}], object))  # Pickled.
  with pytest.raises(UserError, match=rule):
    stored.load_arrays(path)


def test_arrays_of_other_shapes_or_of_texts_are_refused(tmp_path):
  path = tmp_path / "calibration.npz"
  known, passed = normal_of(np.random.default_rng(0)), []
  some = fitted_names(base.get_config().detect, compared=False)
  scores = dict.fromkeys((*NETWORK, *some), known.scores["max"])
  known = known._replace(scores=scores)
  known.save(path, "key")
  assert NormalSessions.load(path, "other", some) is None
  assert NormalSessions.load(path, "key", BASELINES) is None
  loaded = NormalSessions.load(path, "key", some)
  assert loaded is not None
  for name, x in known.columns().items():
    np.testing.assert_array_equal(loaded.columns()[name], x)
    others = [x[None], x.astype(str)]
    others += [x[:-1]] * (name != "order")
    others += [x - 1] * (name in ("sizes", "model", "order"))
    for other in others:
      columns = {**known.columns(), name: other}
      stored.save_arrays(path, {**columns, "rests_on": "key"})
      try:
        NormalSessions.load(path, "key", some)
        passed.append((name, other.shape))
      except UserError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
  assert not passed
  rng = np.random.default_rng(0)
  shapes = (5,), (2, 5), (2, 3, 5), (2, 5), (50, 5)
  tails = values.Tails._make(rng.random(shape) for shape in shapes)
  assert values.joined([tails]).keys.tolist() == sorted(tails.keys)
  for n, x in enumerate(tails):
    for other in (x[..., :-1], x[None], x[:1]):
      if n == 0 and other.ndim == 1:
        continue
      with pytest.raises((ValueError, IndexError)):
        values.joined([values.Tails(*tails[:n], other, *tails[n + 1 :])])


# Sums of the arrays of a calibration with weights. If they change on purpose,
# the test shows new ones, and with these the version that calibration.py needs:
# calibrations that users have are then made again.
SUMS = json.loads(Path(__file__).with_name("sums.json").read_text())


def test_the_version_of_a_calibration_changes_with_its_scores():
  rng = np.random.default_rng(2)
  detector = make({}, (*BASELINES,), True).detector
  sessions = sessions_of([*random_texts(rng, 60), "abcdef" * 7])
  sessions = detector.with_unusual(timed(rng, sessions, [1, 2], [3, 4]))
  counts = np.arange(61) % 3 + 1
  tables = [
    NormalSessions.of_scores(detector.alone(k).score(sessions, counts), k, [])
    for k in range(2)
  ]
  arrays = NormalSessions.concatenate(tables).columns()
  del arrays["order"], arrays["steps"], arrays["left"]
  weighted = lambda x: float(x @ np.cos(np.arange(len(x))))
  sums = {name: weighted(x) for name, x in arrays.items()}
  documents = splits.whole(make_corpus(make_documents([2, 9, 3, 5, 7, 4] * 5)))
  blocks = splits.blocks(documents, 4)
  for k in (0, 2):
    fold = splits.some(documents, blocks == k)
    sums[f"{k + 1}/4"] = weighted(fold.starts.astype(float))
  shown = {name: float(f"{x:.6g}") for name, x in sums.items()}
  assert sums == pytest.approx(SUMS, rel=1e-4, abs=1e-3), json.dumps(shown)
  version = hashlib.sha256(json.dumps(SUMS, sort_keys=True).encode())
  assert version.hexdigest()[:8] == calibration.VERSION


def test_what_the_first_pass_leaves_out_is_kept(
  settings, tmp_path, monkeypatch
):
  texts = ["ab"] * 8 + ["ba", "cc", "ba", "bb"]
  documents = [Document(str(n), text) for n, text in enumerate(texts)]
  pieces = splits.whole(collect(documents, "char"))
  config: Any = SimpleNamespace(detect=settings)
  nothing: Any = None
  settings.update({"folds": 2, "contamination": 0.1})
  run = calibration.Prepared(
    nothing, config, tmp_path, nothing, lambda _: pieces, nothing
  )
  # One "ba" seems to be anomalous, and the other one does not.
  flags = np.isin(np.arange(12), (8, 9, 11))
  names = Vocabulary("char", tuple("abc"))

  def train(_, fold_of, most):
    assert most == calibration._STEPS
    assert fold_of.tolist() == splits.blocks(pieces, 2).tolist()
    for k in range(2):
      (tmp_path / str(k)).mkdir()
    return [Member(tmp_path / str(k), 1, pieces, pieces) for k in range(2)]

  short = lambda sessions: np.zeros(len(sessions.names), bool)
  for name, function in {
    "_key": lambda *args: json.dumps(args[1]),
    "_steps": lambda _: 7,
    "train_members": train,
    "_load": lambda _, members, _wanted: SimpleNamespace(
      names=names, members=members, short=short
    ),
    "score_held_out": lambda _: SimpleNamespace(order=np.arange(12)),
    "contaminates": lambda *_: flags,
  }.items():
    monkeypatch.setattr(calibration, name, function)
  expected = np.isin(np.arange(12), (9, 11)).tolist()
  assert calibration._left_out(run).tolist() == expected
  # Its models are removed.
  assert [path.name for path in tmp_path.iterdir()] == [calibration.LEFT_OUT]
  monkeypatch.setattr(calibration, "_load", None)
  assert calibration._left_out(run).tolist() == expected
  settings.contamination = 0.05
  with pytest.raises(TypeError):  # It begins again.
    calibration._left_out(run)
