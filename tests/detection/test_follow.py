"""Following events: against whole sessions, and whatever a line may hold."""

import io
import json

import jax
import numpy as np
import pytest

import experiments
import run
from seqrnn.data.documents import Document
from seqrnn.data.reading import NOT_UTF8
from seqrnn.data.vocabulary import Vocabulary, save
from seqrnn.detection import calibration, follow, thresholds
from seqrnn.detection.conformal import Calibration, CrossCalibration
from seqrnn.detection.ensemble import Ensemble
from seqrnn.errors import UserError
from seqrnn.experiment import shapes
from seqrnn.inference import scoring
from seqrnn.runtime import sharding
from tests.conftest import tiny

SYMBOLS = {"symbols": Vocabulary("session", tuple("abcdefg"))}
LIMITS = thresholds.Record(
  [(".", 7), ("folds/2", 8)], 0.4, False, 20.0, True, 2
)
CONTENT = {
  "head": "forward",
  "rule": "rate",
  "members": [{"folder": ".", "step": 7}, {"folder": "folds/2", "step": 8}],
  "events": {"rate": 0.4, "unknown": 20.0, "flag_unknown": True, "top_k": 2},
}


NATS = np.array([[0.5, 1.0, 2.0, 4.0, 8.0], [0.2, 0.6, 1.5, 2.5, 9.0]])
NORMAL = CrossCalibration([Calibration(nats) for nats in NATS])


class Out(io.StringIO):
  """Counts how often it is flushed."""

  flushed = 0

  def flush(self):
    self.flushed += 1


def make(tmp_path, fields, symbols=SYMBOLS):
  """Config, experiment and two models, whose compiling takes no time."""
  config = tiny(tmp_path, {"data.unit": "session", "data.window": 40, **fields})
  experiment = experiments.build(config, symbols)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: rng.normal(size=(2, *x.shape)).astype(x.dtype), shapes(experiment)
  )
  seen = np.ones((2, len(symbols["symbols"])), bool)
  seen[1, -1] = False  # The second model has not seen the event g.
  return config, experiment, Ensemble(params, seen)


def followed(made, lines, limits=LIMITS):
  """What is written of lines, the ends of sessions among it."""
  config, experiment, models = made
  out = Out()
  stdin = io.BytesIO(b"".join(line + b"\n" for line in lines))
  follower = follow.Follower(experiment, models, limits, NORMAL)
  follow.follow(follower, config, stdin, out)
  found = [json.loads(line) for line in out.getvalue().splitlines()]
  assert out.flushed == len(found)
  return found


@pytest.mark.parametrize(
  "fields",
  [
    {"model.layers": 2},
    {"model.cell": "gru", "model.embedding_size": 4},
    {"task": "gap_model", "model.heads": "all"},
  ],
)
def test_scores_are_those_of_whole_sessions(tmp_path, fields):
  made = config, experiment, models = make(tmp_path, fields)
  rng = np.random.default_rng(0)
  sessions = {
    f"s{n}": rng.choice(list("abcdefg?"), rng.integers(1, 30)).tolist()
    for n in range(9)
  }
  order = rng.permutation(
    np.repeat(list(sessions), [len(some) for some in sessions.values()])
  )
  left = {name: iter(events) for name, events in sessions.items()}
  lines = [f"{name} {next(left[name])}".encode() for name in order]
  found = followed(made, lines)
  score = scoring.event_scorer(experiment.heads["forward"])
  run = scoring.scorer(experiment, sharding.mesh(), score)
  by_model = []
  for k, unread in enumerate(("", "g")):
    documents = [
      Document(name, ["?" if e in unread else e for e in events], "")
      for name, events in sessions.items()
    ]
    one = jax.tree.map(lambda x, k=k: x[k], models.params)
    by_model.append(run(one, documents))
  for j, (name, events) in enumerate(sessions.items()):
    own = [line for line in found if line["session"] == name]
    assert [line["event"] for line in own] == [*events, "<end>"]
    assert [line["position"] for line in own] == list(range(len(own)))
    assert own[-1]["line"] is None
    unknown = np.array([*events, "<end>"]) == "?"
    assert [line["unknown"] for line in own] == unknown.tolist()
    said = [expected.document(j) for expected in by_model]
    unread = unknown | (np.array([*events, "<end>"]) == "g")
    nlls = np.stack([one["nll"] for one in said])
    mean = -np.log(np.exp(-nlls).mean(axis=0))
    written = np.array([line["nats"] for line in own])
    # The second model gives g some probability, but has not learned it.
    np.testing.assert_allclose(written[~unread], mean[~unread], 1e-4, 1e-4)
    assert (written[unknown] == 20).all()
    np.testing.assert_allclose(
      [line["probability"] for line in own], np.exp(-written), 1e-4
    )
    nlls[:, unknown], nlls[1, unread] = 20, 20
    count = (NATS[:, :, None] >= nlls.round(4)[:, None]).sum(axis=(0, 1))
    p = [line["p_value"] for line in own]
    np.testing.assert_allclose(p, (1 + count) / 11, 1e-5)
    assert [line["flag"] for line in own] == ((1 + count) / 11 <= 0.4).tolist()
    ranks = [line["rank"] for line in own]
    assert [rank is None for rank in ranks] == unknown.tolist()
  assert 0 < sum(line["flag"] for line in found) < len(found)
  by_rank = followed(made, lines, LIMITS._replace(by_rank=True))
  assert all(line["flag"] != line["in_top_k"] for line in by_rank)


def told(found):
  """Sessions and events as they were written."""
  return [(line["session"], line["event"]) for line in found]


def test_the_sessions_that_wait_longest_have_ended(tmp_path):
  made = make(tmp_path, {})
  made[0].detect.followed = 2
  lines = [b"x a", b"y b", b"x c", b"z a", b"y b", b"x c"]
  found = followed(made, lines)
  # z drives out y, which came before x; y drives out x, and x drives out z.
  end = "<end>"
  expected = ["xa", "yb", "xc", "za", "y", "yb", "x", "xc", "z", "y", "x"]
  assert told(found) == [(word[0], word[1:] or end) for word in expected]
  assert [line["position"] for line in found] == [
    0,
    0,
    1,
    0,
    1,
    0,
    2,
    0,
    1,
    1,
    1,
  ]
  assert found[5]["nats"] == found[1]["nats"]
  assert found[9]["nats"] == found[4]["nats"]


def test_a_line_may_end_a_session(tmp_path, capsys):
  made = make(tmp_path, {})
  lines = [
    b"x a",
    b'{"session": "x", "end": true}',
    b'{"session": "x", "end": true}',
    b'{"session": "y", "event": "b", "end": true}',
    b'{"session": "x", "event": "c", "end": false}',
    b'{"session": "x", "end": false}',
    b'{"session": "x", "end": 1}',
    b'{"session": "x", "event": ["c"], "end": true}',
  ]
  found = followed(made, lines)
  assert told(found) == [
    ("x", "a"),
    ("x", "<end>"),
    ("y", "b"),
    ("y", "<end>"),
    ("x", "c"),
    ("x", "<end>"),
  ]
  assert [line["line"] for line in found] == [1, None, 4, None, 5, None]
  told_of = capsys.readouterr().err.splitlines()
  assert told_of[0] == ("line 3: skipped, ends session 'x', which is not open")
  numbers = [line.partition(":")[0] for line in told_of]
  assert numbers == [f"line {n}" for n in (3, 6, 7, 8)]


def test_sessions_cut_by_lines_end_where_the_next_one_begins(tmp_path):
  fields = {"data.unit": "log", "data.log_lines": 2}
  symbols = Vocabulary("log", ("begin", "read"))
  lines = [b"begin", b"read", b"begin", b"read"]
  found = followed(make(tmp_path, fields, {"symbols": symbols}), lines)
  first, second = "standard input:1", "standard input:3"
  assert told(found) == [
    (first, "begin"),
    (first, "read"),
    (second, "begin"),
    (first, "<end>"),
    (second, "read"),
    (second, "<end>"),
  ]


def test_lines_of_a_log_are_events_of_the_sessions_that_they_name(
  tmp_path, capsys
):
  fields = {"data.unit": "log", "data.log_session": r"(job_\d+)"}
  symbols = Vocabulary("log", ("begin <session>", "read <value> B"))
  lines = [
    b"begin job_3",
    b"",
    b"no session",
    b"begin \xff job_3",
    b"crash of job_3 and job_14",
    b"begin job_14",
  ]
  found = followed(make(tmp_path, fields, {"symbols": symbols}), lines)
  shown = ("session", "position", "line", "event", "unknown")
  crash = "crash of <session> and <session>"
  assert [tuple(line[name] for name in shown) for line in found] == [
    ("job_3", 0, 1, "begin <session>", False),
    ("job_3", 1, 5, crash, True),
    ("job_14", 0, 5, crash, True),
    ("job_14", 1, 6, "begin <session>", False),
    ("job_3", 2, None, "<end>", False),
    ("job_14", 2, None, "<end>", False),
  ]
  assert capsys.readouterr().err == f"line 4: skipped, {NOT_UTF8}\n"


def test_lines_come_in_several_forms_and_others_are_told(tmp_path, capsys):
  made = make(tmp_path, {})
  lines = [
    b"x a",
    b"one",
    b"my session\tb",
    b'{"session": 3, "event": "c", "more": []}',
    b"",
    b"x b c",
    b"x \xff",
    b"x\t",
    b'{"session": "x"}',
    b'{"session": "x", "event": null}',
    b"{" * 9999,
    b"long " + b"a" * 200_000,
    b"x c\r",
  ]
  pairs = told(followed(made, lines))[:-3]
  assert pairs == [("x", "a"), ("my session", "b"), ("3", "c"), ("x", "c")]
  told_of = capsys.readouterr().err.splitlines()
  numbers = [line.partition(":")[0] for line in told_of]
  assert numbers == [f"line {n}" for n in (2, 6, 7, 8, 9, 10, 11, 12)]


def test_a_line_whose_time_does_not_exist_is_left_out(tmp_path, capsys):
  fields = {"data.unit": "log", "data.log_gap": 60.0}
  symbols = Vocabulary("log", ("<value> begin", "<time> read"))
  lines = [
    b"no time yet",
    b"2024-02-28 10:00:00 begin",
    b"2024-02-31 10:00:01 read",  # Nor has what goes on with it a time.
    b"  and more of it",
    b"2024-02-28 25:00:00 read",
    b"2024-02-28 09:59:30 read",  # Back: still of the same session.
    b"Feb 30 10:00:00 begin",
    b"2024-02-28 10:05:00 begin",
  ]
  found = followed(make(tmp_path, fields, {"symbols": symbols}), lines)
  shown = [(line["session"], line["line"], line["event"]) for line in found]
  first, second = "standard input:2", "standard input:8"
  assert shown == [
    (first, 2, "<value> begin"),
    (first, 6, "<value> read"),
    (second, 8, "<value> begin"),
    (first, None, "<end>"),
    (second, None, "<end>"),
  ]
  told_of = capsys.readouterr().err.splitlines()
  numbers = [line.partition(":")[0] for line in told_of]
  assert numbers == [f"line {n}" for n in (1, 3, 4, 5, 7)]
  assert told_of[1].startswith(
    "line 3: skipped, '2024-02-31 10:00:01': is no time that data.log_gap"
  )


BAD = {
  "no UTF-8": b"x \xff\xfe",
  "half an object": b'{"session": "x", "event": "a"',
  "a list": b'{"session": ["x"], "event": "a"}',
  "true": b'{"session": true, "event": "a"}',
  "nested": b'{"session": ' * 200_000,
  "nested lists": b'{"session": "x", "event": ' + b"[" * 50_000,
  "no event": b'{"session": "x"}',
  "one word": b"x",
  "zero bytes": bytes(9),
  "a number of many digits": b'{"session": 1' + b"0" * 9999 + b"}",
  "long": b"x" * 2**22,
  "an end of no session": b'{"session": "\\u001b[31m\\n", "end": true}',
  "surrogates": b'{"session": "\\ud800", "end": true}',
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_does_not_end_following(tmp_path, capsys, name):
  made = make(tmp_path, {})
  found = followed(made, [b"x a", BAD[name], b"x b", BAD[name]])
  assert told(found) == [("x", "a"), ("x", "b"), ("x", "<end>")]
  told_of = capsys.readouterr().err.splitlines()
  assert [line.partition(":")[0] for line in told_of] == ["line 2", "line 4"]
  for line in told_of:
    assert line.isprintable() and len(line) < 2100


def test_names_that_a_terminal_would_obey_are_written_out(tmp_path, capsys):
  lines = [b"\x1b[31m\ta", b'{"session": "\\ud800\\u0000", "event": "a"}']
  found = followed(make(tmp_path, {}), lines)
  sessions = ["\x1b[31m", "\ud800\0"]
  assert told(found) == [(s, e) for e in ("a", "<end>") for s in sessions]
  assert capsys.readouterr().err == ""


def test_of_many_bad_lines_few_are_reported(tmp_path, capsys):
  found = followed(make(tmp_path, {}), [b"bad"] * 5000 + [b"x a"])
  assert told(found) == [("x", "a"), ("x", "<end>")]
  told_of = capsys.readouterr().err.splitlines()
  assert len(told_of) == 12
  assert told_of[9].startswith("line 10: skipped, must be a session and")
  assert told_of[-1] == "5,000 lines were skipped"


def test_a_stderr_that_nobody_reads_ends_nothing(tmp_path, monkeypatch):
  class Closed(io.StringIO):
    def write(self, _):
      raise BrokenPipeError

  monkeypatch.setattr(follow.sys, "stderr", Closed())
  found = followed(make(tmp_path, {}), [b"bad", b"x a"])
  assert told(found) == [("x", "a"), ("x", "<end>")]


def arrays_of(models):
  """The arrays of calibration.npz that following reads."""
  return {
    "nll": NATS.ravel(),
    "event_counts": np.ones(10),
    "sizes": np.full(2, 5),
    "model": np.arange(2),
    "steps": np.array([7, 8]),
    "seen": models.seen.astype(np.uint8).ravel(),
  }


@pytest.mark.parametrize(
  ("fields", "limits", "rule"),
  [
    ({"task": "gap_model"}, CONTENT, "next event unless model.heads='all'"),
    ({"data.boundaries": False}, CONTENT, "the first event, it must be True"),
    ({}, None, "no such file; --mode=detect without --follow"),
    ({}, {**CONTENT, "events": {}}, "must be as --mode=detect writes it"),
    ({}, {**CONTENT, "head": "joint"}, "detect.head='joint': must be forward"),
    ({}, {**CONTENT, "members": [{"folder": "../x", "step": 1}]}, "not in the"),
    ({}, CONTENT, "calibration.npz: must be as --mode=detect writes it"),
    ({}, CONTENT, None),
  ],
)
def test_a_run_is_followed_or_refused(
  tmp_path, monkeypatch, capsys, fields, limits, rule
):
  config, _, models = make(tmp_path, fields)
  save(tmp_path / "vocabulary.json", SYMBOLS)
  if limits:
    (tmp_path / "detect").mkdir()
    path = tmp_path / "detect" / "thresholds.json"
    path.write_text(json.dumps(limits))
  if not rule:
    np.savez(tmp_path / "detect" / "calibration.npz", **arrays_of(models))
  monkeypatch.setattr(
    follow.ensemble, "restore", lambda *_: (models.params, [7, 8])
  )
  stdin = io.TextIOWrapper(io.BytesIO(b"x a"))
  monkeypatch.setattr(follow.sys, "stdin", stdin)
  if rule:
    with pytest.raises(UserError, match=rule):
      follow.run(experiments.build, config, tmp_path)
    return
  follow.run(experiments.build, config, tmp_path)
  found = map(json.loads, capsys.readouterr().out.splitlines())
  assert told(found) == [("x", "a"), ("x", "<end>")]


@pytest.mark.parametrize("rule", ["rate", "topk"])
def test_an_event_never_seen_is_flagged_below_the_threshold(tmp_path, rule):
  made = make(tmp_path, {})
  flags = []
  for flag_unknown in (False, True):
    limits = LIMITS._replace(
      rate=1e-9, top_k=2**31, flag_unknown=flag_unknown, by_rank=rule == "topk"
    )
    rows = followed(made, [b"x a", b"x never"], limits)
    flags.append([row["flag"] for row in rows])
  assert flags == [[False] * 3, [False, True, False]]


def test_a_damaged_calibration_is_none(tmp_path):
  path = tmp_path / "calibration.npz"
  nll = np.random.default_rng(0).exponential(size=10)
  models = Ensemble({}, np.ones((2, 9), bool))
  np.savez_compressed(path, **{**arrays_of(models), "nll": nll})
  content, refused = path.read_bytes(), 0
  for place in range(len(content)):
    damaged = bytearray(content)
    damaged[place] ^= 1 << place % 8
    path.write_bytes(damaged)
    try:
      calibration.read_events(path)
    except UserError as error:
      refused += 1
      assert str(error).startswith(
        f"{path}: must be as --mode=detect writes it ("
      )
      assert str(error).endswith("; run --mode=detect again")
  assert refused > len(content) / 2


def test_only_detection_follows(capsys):
  assert run.main(["run.py", "--config=configs/rnn.py", "--follow"]) == 2
  assert "--follow: needs --mode=detect" in capsys.readouterr().err
