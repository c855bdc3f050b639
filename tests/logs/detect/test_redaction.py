"""Redaction: secrets are masked where text of a log is shown."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.data.logs.secrets import Redaction, excerpt
from seqrnn.data.logs.sessions import event_vocabulary
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary, encoded
from seqrnn.errors import UserError
from seqrnn.training import setup
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
# The secret is XX; notations are separated by blanks around a bar.
NOTATIONS = r'''
db.password=XX | dbPassword: XX | password1=XX | passwordHash=XX | pass=XX
pass: XX
"pass": "XX" | DB_PASS=XX | dbpass=XX | passcode: XX | token=XX
accessToken: 'XX'
X-API-Key: XX | accessKeyId=XX | private_key=XX | privateKey: "XX"
encryption_key=XX | AccountKey=XX; | credentials=XX
"credentials": {"user": "bob", "key": "XX"} | creds=XX | Authorization: Token XX
authorization: ApiKey XX | 'authorization': 'XX' | Authorization: XX
Proxy-Authorization: Negotiate XX | Authorization: Token token=XX
Authorization: Token token="XX"
Authorization: Digest username="bob", realm="r", response="XX"
Authorization: AWS4-HMAC-SHA256 Credential=a/b, Signature=XX
Authorization=Bearer%20XX | -H 'Authorization: Token XX' | passwords=["b", "XX"]
passwords = ['b','XX'] ok | tokens: ['XX'] | tokens: [b, XX] | password=[b, XX]
password=(b, XX) | passwords: [["b", "c"], ["XX"]] | passwd:{"new":"XX"}
passwd:{"old":{"a":"b"},"new":"XX"} | {\"passwords\": [\"b\", \"XX\"]}
--password XX | --password 'XX' | --db-password XX | --token XX
Cookie: session=XX
Cookie: a=b; session=XX | Set-Cookie: id=XX; Path=/; HttpOnly
"Cookie": "session=XX" | cookies={'a': 'XX'} | <password>XX</password>
<db:Password type="text">XX</db:Password> | <accessToken>XX</accessToken>
<user name="bob" password="XX"/> | <password><![CDATA[XX]]></password>
token: str = "XX" | token: str="XX" | token: Optional[str] = 'XX'
let token: String = "XX"; | password: !secret XX | password: !vault "XX"
curl -u bob:XX https://host/ | curl -u "bob:XX" host | curl -ubob:XX host
curl --proxy-user bob:XX host | user[password]=XX | params["password"]="XX"
os.environ['DB_PASSWORD'] = 'XX' | password[0]=XX | password => "XX"
:password=>"XX" | password=get("XX") | token = SecretStr("XX") | password=""XX""
password="""XX""" | password=&quot;XX&quot; | password%3DXX | password\u003dXX
password="it's XX" ok | password='it''s XX' ok | IDENTIFIED BY 'XX'
ALTER USER bob WITH PASSWORD 'XX' | {'password': XX, 'user': 'bob'}
PASSWORD='a\'XX' | PGPASSWORD=XX psql | aws_session_token = XX
-----BEGIN PRIVATE KEY-----XX-----END PRIVATE KEY----- | otp=XX
requests.get(u, auth=('bob', 'XX')) | {"name":"DB_PASSWORD","value":"XX"}
{Name=PASSWORD,Value=XX} | %22password%22%3A%22XX%22 | ?sv=1&sig=XX&x=1
X-Auth-Key: XX | pw=XX | password -> XX | ["mysql", "--password", "XX"]
CMD ['x', '--api-key', 'XX', '-v'] | password=["XX", "b | tokens: ['b', 'XX'
{"a": {"passwords": ["b", "XX"]}} ok
password = {"a": ["b)", {"c": "XX"}]}; n=1
Cookie: JSESSIONID=XX; Path=/ | 'Cookie': 'a=b; c=XX'
Authorization: Bearer "XX"
Authorization: Token token="b", id="XX" | _auth=XX
'''
INNOCENT = r"""
password authentication failed for user bob | password changed for bob
invalid password for bob | the password is required | no password, user=bob
password= | password="" user="bob" | tokens=512 | tokens: 15, cost: 3
"total_tokens": 345, "n": 1 | max_tokens=100 | prompt_tokens: 12 | token_count=5
token_type: Bearer | tokenizer=bpe | Tokenizer: wordpiece
Unexpected token '<' in JSON | passenger=Bob | bypass=true | bypass=rule7
compass: north | passed=5 | passes: 3 | pass 3 of 5 | tests: pass=12 fail=0
pass: true | PASS: test_login (0.3s) | --- PASS: TestFoo (0.00s) | low_pass=0.5
secretary: Ann | secretariat=UN | cookies: 3 set | cookie policy: strict
Cookie: none | Cookie consent: accepted | cookie=enabled
authorization failed: user bob | Authorization: required
Authorization: failed for user bob | authorization=none | author: Bob
authority=ca.example | authenticated=true | auth: ok
Basic authentication enabled | basic information | primary_key=id
public_key=server.pub | keyboard: us | key=value | cache_key=user
--user 1000:1000 | docker run -u 1000:1000 web | -u root
curl -u bob https://host:80/x | date -u 12:30:45 | --password-file /etc/x
--password-stdin | --no-password ask | --token --verbose | password_file=/etc/x
<passwordPolicy>strict</passwordPolicy> | <tokens>5</tokens> | <password/>
<password></password> | http://a:80/x@y | blk_-1608999687919862906
52df8a0d-6c9c-4b34-a8c9-6e0f9ac6f5c2 | GET /password/reset 200
POST /oauth/token HTTP/1.1 | user=bob id=7 | took 900 ms, 3 rows
passwordless login: on | credentials expired | require_auth=true | auth: ok
auth failed (bob) | mysql -u root -p db | docker run -p 80:80 web
Passwords must have 8 letters | the token (see log): ok | {"tokens": 5, "n": 1}
{"passed": 3, "failed": 0} | [token] ok | pw 12
Usage: login <user> <password> [host] | opt=5 stop=7
no secrets found in 3 files | Login: bob | Credentials accepted | "sig": 5
significance=5 | surpass: 5 | encompass=7 | password=<value> of user <value>
token: "<value>" or (secret=<*>)., pwd=<masked>&pwd=
passwords=[<value>, <value>] | passwords=["<*>"] | Authorization: Token <value>
Authorization: <value> <value> | <password><value></password>
--password <value> | cookie=<masked>; b=<value> | passwords=[<value>]
"""


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
  lines = INNOCENT.strip().replace("\n", " | ").split(" | ")
  # Several in a line.
  lines.append(
    "http://a:80/x@y https://[::1]:443, http://a@b/c http://a:80,x@y"
  )
  assert not faults + [text for text in lines if masks.text(text) != text]
  first, second, again = map(masks.name, ("a@b.cd", "x@b.cd", "a@b.cd"))
  assert first == again != second


def test_no_notation_shows_a_secret():
  masks, faults = Redaction("<secrets>"), []
  notations = NOTATIONS.strip().replace("\n", " | ").split(" | ")
  notations.append('token: str | None = "XX"')  # The bar is a part of it.
  for notation in notations:
    line = notation.replace("XX", "Hunter2-xyz")
    masked = masks.text(line)
    is_shown = any("Hunter2-xyz"[n : n + 4] in masked for n in range(8))
    if line == notation or is_shown or masks.text(masked) != masked:
      faults.append((notation, masked))
  assert not faults and len(notations) > 100


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
  for pattern in (
    "(",
    "a*",
    "<secrets>|)",
    "a<secrets>",
    "||<secrets>",
    *inside,
  ):
    config.detect.redact = pattern
    with pytest.raises(UserError, match="detect.redact") as error:
      config_lib.check(config)
    assert "\n" not in str(error.value)


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
