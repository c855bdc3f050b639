"""Redaction: secrets are masked where text of a log is shown."""

import json
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.data.logs.secrets import Redaction, excerpt
from seqrnn.data.logs.sessions import event_vocabulary
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary, encoded
from seqrnn.training import setup
from tests.conftest import message_of
from tests.data.logs.test_logs import settings

SECRET = [
  ("X-Auth-Token: Bearer aB3dE6gH9jK2", "aB3dE6gH9jK2"),
  ("http://bob:hunter2@host.com/x", "hunter2"),
  ("mail of jo.doe+x@mail.example.org.", "jo.doe+x@mail.example.org"),
  ("GET /?token=abc&n=1", "abc"),
  ("Authorization: Bearer abcdefgh.1", "abcdefgh.1"),
  ("AKIAABCDEFGHIJKLMNOP used", "AKIAABCDEFGHIJKLMNOP"),
  ("http://a@b.cd:hunter2@host/x", "hunter2"),
  ("login of bob:p@ss@host failed", "p@ss"),
  (r'{"password": "a\"b c\\", "n": 1}', r"a\"b c\\"),
  (r'{"m": "{\"password\": \"ab\\\"c d\"}"} x', r"ab\\\"c d"),
  ("by ghp_0123456789abcdefghij", "ghp_0123456789abcdefghij"),
  ("eyJhbGciOi.eyJzdWIi.abc-def x", "eyJhbGciOi.eyJzdWIi.abc-def"),
  (f"sent {'aB3x' * 12}== to", f"{'aB3x' * 12}=="),
]


def lines_of(name):
  return Path(__file__).with_name(name).read_text("utf-8").splitlines()


# The secret is XX.
NOTATIONS, INNOCENT = map(lines_of, ("notations.txt", "innocent.txt"))


def test_secrets_are_masked_and_nothing_beside_them():
  masks, faults = Redaction("<secrets>"), []
  for text, secret in SECRET:
    masked, name = masks.text(text), masks.name(text)
    begin, end = text.split(secret)
    if (
      masked != text.replace(secret, "<masked>")
      or masks.text(masked) != masked
      or not (name.startswith(f"{begin}<masked-") and name.endswith(f">{end}"))
    ):
      faults.append((text, masked, name))
  assert not faults + [text for text in INNOCENT if masks.text(text) != text]
  first, second, again = map(masks.name, ("a@b.cd", "x@b.cd", "a@b.cd"))
  assert first == again != second


def test_no_notation_shows_a_secret():
  masks, faults = Redaction("<secrets>"), []
  for notation in NOTATIONS:
    line = notation.replace("XX", "Hunter2-xyz")
    masked = masks.text(line)
    is_shown = any("Hunter2-xyz"[n : n + 4] in masked for n in range(8))
    if line == notation or is_shown or masks.text(masked) != masked:
      faults.append((notation, masked))
  assert not faults and len(NOTATIONS) > 100


_QUOTED = st.text("ab<>\"'\\,;:=@/ é\t", min_size=4)
# A function from a secret to a line, and secrets.
_LINES = st.one_of(
  st.tuples(st.just(lambda x: f'{{"password": {json.dumps(x)}}} ok'), _QUOTED),
  st.tuples(st.just(lambda x: json.dumps(json.dumps({"api_key": x}))), _QUOTED),
  st.tuples(st.just(lambda x: f"token={x!r} ok"), _QUOTED),
  st.tuples(
    st.just(lambda x: f"pwd: {x}; ok"), st.text("ab<>\\:=@/[(.%", min_size=4)
  ),
  st.tuples(
    st.sampled_from(
      [lambda x: f"to db://me:{x}@host ok", lambda x: f"to db://me@b:{x}@host"]
    ),
    st.from_regex(r"[ab<>\\:=@'.%#?]{4,}(/[ab@]{1,9})?", fullmatch=True),
  ),
)


@hypothesis.settings(deadline=None, derandomize=True, max_examples=300)
@hypothesis.given(_LINES)
def test_no_part_of_a_secret_survives(line):
  write, secret = line
  mask = Redaction("<secrets>").text
  shown = mask(write(secret))
  # Around the secret there may be the same.
  frame = write("zzzz") + mask(write("zzzz"))
  for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
    parts = (form[i : i + 4] for i in range(len(form) - 3))
    assert not [x for x in parts if x in shown and x not in frame]


def test_a_pattern_adds_to_the_secrets_and_groups_are_what_is_masked():
  """Also groups within groups, and groups that are beside a match."""
  both, masked = "aa=5 ab=6 a@b.cd", "<masked>a=<masked> ab=6 <masked>"
  line = "customer 12 of Rome, a@b.cd, card 5"
  for pattern, text, expected in (
    (r"user (b(\w)b)(c+)", "user babccc", "user <masked><masked>"),
    (r"user (?=(\w+))", "user babccc", "user <masked>"),
    (
      r"(?<=u(s.r))|(b(a)(?=(b|c)))",
      "user babccc",
      "u<masked> <masked><masked>ccc",
    ),
    (
      r"<secrets>|customer (\d+) of (\w+)|card",
      line,
      "customer <masked> of <masked>, <masked>, <masked> 5",
    ),
    # References are to the pattern's own groups, flags of the whole of it.
    (r"<secrets>|(\w)\1=(\d+)", both, masked),
    (r"(?i)(\w)\1=(\d+)|<secrets>|card", both, masked),
    (r"(?i)(\w)\1=(\d+)|<secrets>|card", "CARD", "<masked>"),
  ):
    assert Redaction(pattern).text(text) == expected, pattern


def test_time_is_linear_in_the_length_of_a_line():
  # At the square of the length this would take minutes.
  for unit in (
    *("://a:", "secret_", "a.a", "aB3.", "eyJa.x@", "-eyJ", "a:@.", "a.-@"),
    *("pwd=", 'pwd="', "pwd=\\", 'pwd=\\"', "pwd ", "://", "/", "@", "a@"),
    *("pwd=[", "pwd=['", "pwd=(\"'", "pass[", "--a-pwd", "<pwd>", "curl -u "),
    *("Cookie:a=b;", "authorization: token a=b,", "tokens ", "KEY-----", "!a "),
  ):
    Redaction("<secrets>").text(unit * 10_000)
  Redaction("<secrets>").text("authorization: token " + "aB3" * 15_000)
  Redaction("<secrets>").text("pwd=[" + r"\"" * 50_000)
  Redaction("<secrets>").text(r'_autha"acookies=[pwd=\\"' * 5_000)


def test_a_pattern_that_masks_nothing_or_is_none_is_refused():
  config = base.get_config()
  inside = "(?<=<secrets>)x", "[<secrets>]", "(a|<secrets>|b)", "[|<secrets>|]"
  wrong = "(", "a*", "<secrets>|)", "a<secrets>", "||<secrets>"
  for pattern in (*wrong, *inside):
    config.detect.redact = pattern
    assert "detect.redact" in message_of(config_lib.check, config)


def test_templates_are_shown_with_masks_and_known_without():
  line = "login with secret=abc"
  plain = Vocabulary("log", (line, "closed"))
  masked = event_vocabulary(plain, "<secrets>")
  ids = masked.encode(["login with secret=abc", "closed", "x"])
  assert ids.tolist() == [4, 5, UNKNOWN]
  assert masked.names([4, 5]) == ["login with secret=<masked>", "closed"]
  assert masked.text([4, 5]) == "login with secret=<masked>\nclosed"
  assert encoded({"symbols": masked}) == encoded({"symbols": plain})
  assert json.loads(encoded({"s": masked}))["s"]["symbols"][0] == line
  config = base.get_config()
  config.data.unit = "log"
  for pattern, shown in (("<secrets>", masked), ("", plain)):
    config.detect.redact = pattern
    built = experiments.build(config, {"symbols": plain})
    assert built.vocabularies["symbols"].names([4]) == shown.names([4])


def test_the_first_line_of_a_log_is_shown_with_masks(tmp_path, capfd):
  secret = "abcdefghijklmnopqrstuvwxyz"
  line = f"2026-11-25T12:00:01Z password={secret} of bob\n"
  config = settings(tmp_path, line, log_format="auto")
  for redact, shown in (
    ("<secrets>", "'password=<masked> of bob'"),
    ("", "'password=abcdefghijklmnopqrstuvwxyz"),
  ):
    config.detect.redact = redact
    setup.check_owner(config, tmp_path / "run")
    told = capfd.readouterr().err
    assert shown in told and told.count("\n") == 1
    assert (secret[:9] in told) == (not redact)


def test_a_text_is_masked_before_it_is_cut():
  for most in range(5, 25):
    assert "alice" not in excerpt("mail alice@example.com", most)
