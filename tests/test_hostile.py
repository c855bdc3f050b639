"""Workdirs made by somebody else: one line or the right result, and no harm.

Each case changes a copy of a small trained workdir. Where it changes a
checkpoint, the checksums are written anew: whoever made it can do that, too.
"""

import json
import os
import re
import shlex
import shutil
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import tensorstore

from seqrnn import cli, experiments
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.errors import UserError
from seqrnn.runtime.files import SUMS
from seqrnn.training import checkpoint
from tests.conftest import TINY, write_text

HUGE = 100 * 2**30  # Bytes of a file that takes none on disk.
LAST = "checkpoints/2"
SAMPLE = "--workdir=x --mode=sample --config.sample.length=8"


def main(line: str) -> int:
  return cli.main(["run.py", *shlex.split(line)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A folder with a corpus, a secret and a run of two steps."""
  home = tmp_path_factory.mktemp("hostile")
  write_text(home)
  (home / "secret").write_text("outside of the workdir")
  config = base.get_config()
  config.update_from_flattened_dict(
    {**TINY, "data.path": "corpus", "train.max_steps": 2}
  )
  (home / "lm.json").write_text(config.to_json())
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(home)
    assert main("--config=lm.json --workdir=lm") == 0
  return home


@pytest.fixture
def home(trained, monkeypatch):
  """The same, with a copy of the run that a test may change, x.

  It has no checksums: who changes a file may leave them out.
  """
  monkeypatch.chdir(trained)
  shutil.copytree("lm", "x")
  Path("x", SUMS).unlink()
  yield trained
  shutil.rmtree(trained / "x")


@contextmanager
def lean() -> Iterator[None]:
  """Its block must not take more than 300 MB."""

  def kilobytes(name):
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0])

  try:
    Path("/proc/self/clear_refs").write_text("5")  # Begins a new peak.
  except OSError:
    yield  # Linux alone tells it.
    return
  before = kilobytes("VmRSS")
  yield
  assert kilobytes("VmHWM") - before < 300_000


def state(folder: Path, without: str | None = None) -> dict[str, tuple]:
  """All that is in a folder, and when it was last changed."""
  found = {}
  for path in folder.rglob("*"):
    if path.name.startswith(".") and path.suffix == ".lock":
      continue  # A mode may have taken it before it was refused.
    if without is None or without not in path.parts:
      status = path.lstat()
      facts = (status.st_mode, status.st_size, status.st_ino)
      # Training locks its workdir, which changes that of the folder.
      found[str(path)] = (
        facts if path.is_dir() else (*facts, status.st_mtime_ns)
      )
  return found


# What a case does to a workdir.

Edit = Callable[[Path], None]


def text(name: str, content: str | bytes) -> Edit:
  """Another content of a file."""
  encoded = content if isinstance(content, bytes) else content.encode()
  return lambda workdir: signed(workdir, name, encoded)


def signed(workdir: Path, name: str, content: bytes):
  path = workdir / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  if name.startswith(LAST) and not name.endswith(SUMS):
    sign(workdir)


def sign(workdir: Path):
  """Writes the checksums of the present files."""
  checkpoint.write_sums(workdir / LAST)


def field(name: str, value: Any) -> Edit:
  """Another value of a config's field."""

  def edit(workdir):
    path = workdir / "config.json"
    fields = json.loads(path.read_text())
    *groups, key = name.split(".")
    group = fields
    for part in groups:
      group = group.setdefault(part, {})
    group[key] = value
    path.write_text(json.dumps(fields))

  return edit


def position(**fields: Any) -> Edit:
  """Other fields of a position."""

  def edit(workdir):
    name = f"{LAST}/position/metadata"
    found = json.loads((workdir / name).read_text())
    signed(workdir, name, json.dumps({**found, **fields}).encode())

  return edit


def symbols(content: Any, unit: str = "char", name: str = "symbols") -> Edit:
  """Another vocabulary."""
  fields = {name: {"unit": unit, "symbols": content}}
  return text("vocabulary.json", json.dumps(fields))


def array(name: str = "head.bias", **fields: Any) -> Edit:
  """Another array in a checkpoint, as zarr's metadata describe it."""

  def edit(workdir):
    folder = workdir.absolute() / LAST / "params"
    store = tensorstore.KvStore.open(
      {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    ).result()
    key = f"{name}/.zarray"
    found = json.loads(store.read(key).result().value)
    store.write(key, json.dumps({**found, **fields}).encode()).result()
    sign(workdir)

  return edit


def crc32c(content: bytes) -> int:
  crc = 0xFFFFFFFF
  for byte in content:
    crc ^= byte
    for _ in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
  return crc ^ 0xFFFFFFFF


def elsewhere(workdir: Path):
  """Has the database of arrays look for its data outside of the workdir."""
  path = workdir / LAST / "params/manifest.ocdbt"
  content = path.read_bytes()[:-4]
  start = content.index(b"d/")
  name = content[start : start + 34]
  outside = b"../../../../" + b"s" * 22
  shutil.copy(path.parent / name.decode(), "s" * 22)
  content = content.replace(name, outside)
  path.write_bytes(content + struct.pack("<I", crc32c(content)))
  sign(workdir)


def link(name: str, target: str) -> Edit:
  def edit(workdir):
    path = workdir / name
    if path.is_dir():
      shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(workdir.absolute().parent / target)

  return edit


def pipe(name: str) -> Edit:
  def edit(workdir):
    (workdir / name).unlink(missing_ok=True)
    os.mkfifo(workdir / name)

  return edit


def listen(workdir: Path):
  with socket.socket(socket.AF_UNIX) as server:
    server.bind(os.path.relpath(workdir / "s"))


def folder(name: str) -> Edit:
  def edit(workdir):
    (workdir / name).unlink(missing_ok=True)
    (workdir / name).mkdir(parents=True)

  return edit


def sparse(name: str) -> Edit:
  return lambda workdir: os.truncate(workdir / name, HUGE)


def large(workdir: Path):
  """A database with room for a million times its arrays."""
  (workdir / LAST / "params/d/more").write_bytes(b"\0" * 2**20)
  sign(workdir)


def only(*edits: Edit) -> Edit:
  def edit(workdir):
    for change in edits:
      change(workdir)

  return edit


def no_checkpoint(workdir: Path):
  shutil.rmtree(workdir / "checkpoints")
  (workdir / "checkpoints").touch()


ESCAPE = "\x1b]0;owned\x07\x9b2J\u202e"
DEEP = "[" * 100_000
# A name as long as the depth times that of its groups, for each of many fields.
BOMB = '{"k":' * 400 + "{" + ",".join(f'"{n}":0' for n in range(10**4)) + "}"
BOMB = BOMB.replace("k", "k" * 1000) + "}" * 400
LINK = "is a link; a workdir must hold files and folders only"
PIPE = "is a pipe, socket or device"
SHAPES = "does not hold the model of config.json"
DAMAGED = "no checkpoint is intact, checkpoint 2 is damaged"
POSITION = "position/metadata: "
BOTH = (SAMPLE, "--workdir=x")
INPUT = "x/config.json: input data.path='corpus'\n"
TRAIN = ("--workdir=x --config.train.max_steps=3",)
PREDICT = ("--workdir=x --mode=predict",)


# A name, the edit, a part of the line, and the commands (else sampling alone).
REFUSED: list[tuple] = [
  # What leads out of the workdir, or keeps waiting.
  ("config is link", link("config.json", "lm.json"), LINK, BOTH),
  ("folder is link", link("checkpoints", "lm/checkpoints"), LINK, BOTH),
  ("link deep inside", link(f"{LAST}/params/d/x", "secret"), LINK, BOTH),
  ("predictions are link", link("predictions.csv", "secret"), LINK, PREDICT),
  ("lock is link", link("lock", "secret"), LINK, TRAIN),
  ("config is pipe", pipe("config.json"), PIPE, BOTH),
  ("socket", listen, PIPE, BOTH),
  ("config is folder", folder("config.json"), "Is a directory", BOTH),
  ("checkpoints are file", no_checkpoint, "has no checkpoint"),
  # Files that are too large to be read.
  ("sparse config", sparse("config.json"), "larger than 1,048,576", BOTH),
  ("sparse vocabulary", sparse("vocabulary.json"), "larger than 67,1", BOTH),
  ("sparse array", sparse(f"{LAST}/params/manifest.ocdbt"), DAMAGED, BOTH),
  (
    "large position",
    text(f"{LAST}/position/metadata", b" " * 2**23 + b"{}"),
    "larger than 8,388,608",
  ),
  # config.json.
  (
    "code",
    text("config.json", "import os; os.mkdir('owned')"),
    "config.json: not a config in JSON",
    (*BOTH, "--config=x/config.json"),
  ),
  ("deep config", text("config.json", DEEP), "in JSON (maximum", BOTH),
  ("nested groups", text("config.json", BOMB), "groups of fields", BOTH),
  ("5000 digits", text("config.json", "[%s]" % ("9" * 5000)), "JSON", BOTH),
  ("path as task", field("task", "../../os"), "must be one of class", BOTH),
  ("escapes in a value", field("data.unit", ESCAPE), r"\x1b]0;owned", BOTH),
  ("endless value", field("data.unit", "a" * 10**6), "aaa...", BOTH),
  ("group as value", field("model", 3), "model: no such field", BOTH),
  # Sizes that only a config claims.
  ("hidden size", field("model.hidden_size", 2**24), SHAPES, BOTH),
  ("layers", field("model.layers", 2**31 - 1), "from 1 to 128", BOTH),
  (
    "window",
    only(field("data.window", 2**31 - 1), field("data.mapping", "many_to_one")),
    "more than 2**24 symbols",
    BOTH,
  ),
  # vocabulary.json.
  ("deep vocabulary", text("vocabulary.json", DEEP), "not JSON", BOTH),
  ("symbols as text", symbols("abc"), "a list of distinct strings", BOTH),
  ("twice", symbols(["a", "a"]), "a list of distinct strings", BOTH),
  ("other names", symbols(["a"], name=ESCAPE), "lacks symbols", BOTH),
  (
    "million symbols",
    symbols([str(n) for n in range(10**6)], unit="id"),
    SHAPES,
    BOTH,
  ),
  # sha256, the checksums.
  (
    "no checksums",
    lambda w: (w / LAST / SUMS).unlink(),
    f"{DAMAGED}: sha256 is missing or broken",
    BOTH,
  ),
  (
    "checksums lead out",
    text(f"{LAST}/{SUMS}", f"9 {'0' * 64}  ../../../secret\n"),
    "../../../secret is missing",
    BOTH,
  ),
  (
    "escapes in a file's name",
    lambda workdir: (workdir / LAST / "params" / ESCAPE).touch(),
    r"\x1b]0;owned\x07\x9b2J\u202e is not in sha256",
    BOTH,
  ),
  (
    "figures are none",
    text("metrics.csv", "what is this\n1\n"),
    "metrics.csv: its first column must be step",
    TRAIN,
  ),
  # position/metadata.
  (
    "batch of no epoch",
    position(batch=10**6),
    "is of batch 1000000 of an epoch, which has 23",
    TRAIN,
  ),
  ("deep position", text(f"{LAST}/position/metadata", DEEP), POSITION),
  ("best is path", position(best_step="../../x"), "='../../x' is not", BOTH),
  ("best is NaN", position(best=float("nan")), "best=nan is not"),
  ("another step", position(step=2**31), "step=2147483648 is not"),
  ("unknown place", position(place=1), "must be an object of step, ", TRAIN),
  # Arrays.
  ("shape", array(shape=[2**40]), f"{SHAPES}: head.bias is {{", BOTH),
  ("block", array(chunks=[2**40]), "larger than the array", BOTH),
  ("object", array(dtype="|O"), SHAPES, BOTH),
  ("fields", array(dtype=[["a", "<f4", [2**40]]]), SHAPES, BOTH),
  (
    "compressor",
    array(
      compressor={"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}
    ),
    "'id': 'blosc'",
    BOTH,
  ),
  ("driver", array(kvstore="http://127.0.0.1/"), SHAPES, BOTH),
  ("database leads out", elsewhere, f"{SHAPES}: ", BOTH),
  ("large database", large, "bytes of arrays", BOTH),
]


@pytest.mark.parametrize(
  "edit, expected, lines",
  [
    pytest.param(edit, expected, *(lines or [(SAMPLE,)]), id=name)
    for name, edit, expected, *lines in REFUSED
  ],
)
def test_it_is_refused_in_a_line(edit, expected, lines, home, capfd):
  edit(Path("x"))
  for line in lines:
    training = "--mode" not in line
    before = state(home, "x" if training else None)
    with lean():
      status = main(line)
    _, err = capfd.readouterr()
    err = err.removeprefix(INPUT)
    assert (err[:7], err.count("\n")) == ("error: ", 1), err
    assert expected in err and status == 2, err
    assert err[:-1].isprintable() and len(err) < 2100
    assert state(home, "x" if training else None) == before
  if SAMPLE in lines:
    with pytest.raises(UserError):
      experiments.load("x")


@pytest.mark.usefixtures("home")
def test_training_does_not_first_make_what_it_then_refuses(capfd):
  field("model.hidden_size", 2**13)(Path("x"))  # A gigabyte of parameters.
  with lean():
    assert main("--workdir=x") == 2
  assert SHAPES in capfd.readouterr().err


OWN = "import os; os.mkdir('owned')\ndef get_config(): os.mkdir('owned')\n"
FLAGS = '{"use_ocdbt": false, "use_zarr3": true, "tree_metadata": {"a": 1}}'


def code(workdir: Path):
  for name in ("config", "configs/base", "jax", "sitecustomize", "2"):
    (workdir / name).parent.mkdir(exist_ok=True)
    (workdir / f"{name}.py").write_text(OWN)


def names(workdir: Path):
  for name in ("9" * 30, "\u0663", "07", "-1", ESCAPE):
    (workdir / "checkpoints" / name).mkdir()


def damaged(workdir: Path):
  folder = workdir / "checkpoints/9"
  (folder / "params").mkdir(parents=True)
  (folder / "params" / ESCAPE).touch()
  (folder / SUMS).touch()


def more_names(workdir: Path):
  path = workdir / "vocabulary.json"
  fields = json.loads(path.read_text())
  path.write_text(json.dumps({ESCAPE: fields["symbols"], **fields}))


# Edits that change nothing, and the warning on stderr.
HARMLESS: list[tuple] = [
  ("code", code, ""),
  ("folders that are no steps", names, ""),
  ("another vocabulary", more_names, ""),
  (
    "what Orbax alone reads",
    only(
      text(f"{LAST}/_CHECKPOINT_METADATA", '{"a": 1}'),
      text(f"{LAST}/params/_METADATA", FLAGS),
      text(f"{LAST}/params/_sharding", b"\xff"),
      text(f"{LAST}/params/array_metadatas/process_0", DEEP),
    ),
    "",
  ),
  (
    "a damaged checkpoint",
    damaged,
    r"checkpoint 9 is damaged: params/\x1b]0;owned\x07\x9b2J\u202e is not in"
    " sha256\ncheckpoint 2 is used instead\n",
  ),
  (
    "places outside",
    only(
      field("detect.output", "output"),
      field("detect.port", "0"),
      field("search.storage", "sqlite:///trials.db"),
    ),
    "x/config.json: ignored, only flags and --config set them: detect.output,"
    " detect.port, search.storage\n",
  ),
]


@pytest.fixture(scope="module")
def expected(trained):
  """The sample of the unchanged run."""
  with (
    pytest.MonkeyPatch.context() as patch,
    redirect_stdout(StringIO()) as out,
  ):
    patch.chdir(trained)
    assert main(SAMPLE.replace("=x", "=lm")) == 0
  return out.getvalue()


@pytest.mark.parametrize(
  "edit, warning", [pytest.param(*case, id=name) for name, *case in HARMLESS]
)
def test_it_changes_nothing(edit, warning, expected, home, capfd):
  edit(Path("x"))
  before = state(home)
  with lean():
    assert main(SAMPLE) == 0
  assert capfd.readouterr() == (expected, warning)
  assert state(home) == before


@pytest.mark.usefixtures("home")
def test_a_symbol_that_no_terminal_knows_is_printed(capfd):
  path = Path("x/vocabulary.json")
  content = json.loads(path.read_text())
  content["symbols"]["symbols"][:] = map(chr, range(0xD800, 0xD807))
  path.write_text(json.dumps(content))
  assert main(SAMPLE) == 0
  out, err = capfd.readouterr()
  assert re.fullmatch(r"(\\ud80[0-6])*\n", out) and err == ""


@pytest.mark.usefixtures("home")
def test_no_type_of_any_field_goes_through():
  wrong = [None, True, -1, 1.5, "x", [], ["a"], {}, 10**30]
  for name in config_lib.FIELDS:
    for value in wrong:
      Path("x/config.json").write_text('{"format": 1}')
      field(name, value)(Path("x"))
      try:
        config = config_lib.read_run("x")
        config_lib.check(config)
      except UserError:
        continue
      assert config_lib.FIELDS[name].holds(config_lib.flat(config)[name])


@pytest.mark.usefixtures("home")
def test_a_terminal_gets_nothing_that_it_would_obey(capsys, monkeypatch):
  path = Path("x/vocabulary.json")
  content = json.loads(path.read_text())
  content["symbols"]["symbols"][:2] = ["\x1b", "\x9b"]
  path.write_text(json.dumps(content))
  sample = "--workdir=x --mode=sample --config.sample.prime=\x1b\x9b"
  predict = "--workdir=x --mode=predict --config.predict.text=\x1b\x9bab"
  assert main(sample) == 0
  assert "\x1b" in capsys.readouterr().out  # To a file or another program.
  monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
  for line in (sample, predict):
    assert main(line) == 0
    out = capsys.readouterr().out
    assert r"\x1b" in out and r"\x9b" in out
    assert "\x1b" not in re.sub(r"\x1b\[[\d;]*m", "", out)  # Rich's own colors.
    assert "\x9b" not in out
