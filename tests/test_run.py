"""The command line: its meaning, and one line for every mistake."""

import errno
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from seqrnn import cli
from seqrnn.config.derived import merge
from seqrnn.configs import base
from seqrnn.errors import Interrupted, UserError
from seqrnn.runtime import files

ROOT = Path(__file__).parents[1]

# The user's files, beside a corpus and two trained runs.
FILES = {
  "one.txt": b"a",
  "text.txt": b"a text of the user's, which has no gap in it\n" * 4,
  "dict.py": b"def get_config():\n  return {'seed': 3}\n",
}

LM, GAP = "--config=lm.json", "--config=gap.json"

# A mistake -> a part of its line. Each is of another kind.
MISTAKES = {
  # The line itself and the config.
  "--mode=train": "--mode=train: needs --workdir, the folder of a run, or",
  f"{LM} --workdir=/proc/x": "/proc/x: No such file or directory",
  f"{LM} --workdir=a\udcff": r"--workdir=a\udcff: must be UTF-8",
  "'--config=no\nsuch.py'": "--config=no such.py: no such file",
  "--config=dict.py": "dict.py: get_config() must return a ConfigDict",
  # Values and fields that conflict.
  f"{LM} --config.model.parameters=1_0": "config.model.parameters=10: the sm",
  f"{LM} --config.data.test_fraction=0.9": "their sum must be below 1",
  f"{LM} --config.model.tied --config.model.embedding_size=9": "tied weights "
  "need an embedding as wide as the last layer, 8",
  f"{GAP} --config.data.stateful": "the backward tower has no carry",
  # The corpus.
  f"{LM} --config.data.min_count=9999": "none is left for the vocabulary",
  f"{LM} --config.data.path=one.txt": "leaves no symbol for the validation",
  f"{LM} --config.data.split=stream_tails": "needs one document, not 3",
  f"{LM} --config.data.offset=999": "data.offset=999: no document is long",
  # The workdir.
  f"{LM} --workdir=text.txt": "--workdir=text.txt: must be a folder",
  f"{LM} --workdir=lm --config.seed=1 --config.model.cell=gru": "holds another "
  "run, model.cell: 'lstm' -> 'gru'; seed: 0 -> 1;",
  "--workdir=lm --mode=sample --config.model.layers=2": "lm: was trained with "
  "other settings, model.layers: 1 -> 2",
  "--workdir=lm --mode=evaluate --config.data.log_mask=a": "lm: was trained "
  "with other settings, data.log_mask: None -> 'a'",
  "--workdir=lm --mode=evaluate --config.train.choice=last": "lm: was trained "
  "with other settings, train.choice: 'best' -> 'last'",
  "--workdir=changed": "changed: the training data have changed since",
  "--workdir=flipped": "flipped/config.json: differs from its checksum",
  "--workdir=bare --mode=sample": "bare: has no checkpoint; train this run",
  "--workdir=lm --mode=sample --config.checkpoint.step=9": "no such checkpoint",
  # The modes.
  f"{LM} --mode=search --config.search.space=seed=3": "must be log_uniform(",
  "--workdir=gap --mode=sample": "task='gap_model' cannot write one symbol",
  "--workdir=paths --mode=evaluate": "data.test_path=None: ",
  "--workdir=lm --mode=predict --config.predict.text=": "has no symbol",
}


def main(line: str) -> int:
  return cli.main(["run.py", *shlex.split(line)])


def edit(workdir: Path, group: str, **fields):
  """Changes fields of a run's config as no flag can."""
  path = workdir / "config.json"
  config = json.loads(path.read_text())
  (config[group] if group else config).update(fields)
  path.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def home(tmp_path_factory, trained):
  """A folder with the user's files, and runs, sound and broken."""
  home = tmp_path_factory.mktemp("home")
  for name, content in FILES.items():
    (home / name).parent.mkdir(exist_ok=True)
    (home / name).write_bytes(content)
  sound = ["lm", "bare", "flipped"]  # With their checksums.
  for name in [*sound, "gap", "paths", "changed"]:
    shutil.copytree(trained(), home / name)
    if name not in sound:
      (home / name / files.SUMS).unlink()
  edit(home / "gap", "", task="gap_model")
  edit(home / "flipped", "", seed=9)
  edit(home / "changed", "data", path="text.txt")
  edit(home / "paths", "data", path=None, train_path="a", validation_path="b")
  shutil.rmtree(home / "bare/checkpoints")
  for name in ("lm", "gap"):
    shutil.copy(home / name / "config.json", home / f"{name}.json")
  return home


@pytest.fixture
def call(home, monkeypatch):
  """A function from a command line, typed at home, to its exit status."""
  monkeypatch.chdir(home)
  return main


def contents(folder: Path) -> dict[Path, bytes | None]:
  """Files and folders; a lock names the process that has last held it."""
  return {
    path: path.read_bytes() if path.is_file() and path.name != "lock" else None
    for path in folder.rglob("*")
    if path.name != "__pycache__" and path.parent.name != "__pycache__"
  }


def test_a_mistake_is_one_line_and_status_2(home, call, capfd):
  before, faults = contents(home), []
  for line, expected in MISTAKES.items():
    status = call(line)
    err = without_inputs(capfd.readouterr().err)
    one = err.startswith("error: ") and err.count("\n") == 1
    if not one or expected not in err or status != 2:
      faults.append((line, status, err))
  assert not faults
  assert contents(home) == before


def test_how_a_mode_ends(call, capfd, monkeypatch):
  """A full memory, a missing device, an interruption, a mistake, a bug."""
  line = "--workdir=lm --mode=sample"

  def ends(error, *flags):
    def fail(*_):
      raise error from OSError("the cause")

    monkeypatch.setattr("seqrnn.modes.sample.run", fail)
    return call(" ".join([line, *flags])), capfd.readouterr().err

  memory = RuntimeError("INTERNAL: Out of memory allocating 99 bytes.")
  status, err = ends(memory)
  assert status == 2 and err.startswith("error: out of memory: model.hidden")
  assert ends(Interrupted(15)) == (143, f"{Interrupted(15)}\n")
  mistake = UserError("nowhere: cannot be written")
  assert ends(mistake) == (2, f"error: {mistake}\n")
  status, err = ends(mistake, "--debug")
  assert status == 2 and err.endswith(f"\nerror: {mistake}\n")
  assert "in fail\n" in err and "OSError: the cause" in err
  with pytest.raises(RuntimeError, match="a bug"):
    ends(RuntimeError("a bug"))
  missing = errno.ENOENT, "No such file or directory"
  for error, expected in (
    (OSError(*missing, "a.txt"), f"a.txt: {missing[1]}"),
    (OSError(errno.ENOSPC, "No space left"), "stdout: No space left"),
    (OSError(errno.ENOMEM, "Cannot allocate"), "memory: Cannot allocate"),
  ):
    assert ends(error) == (2, f"error: {expected}\n")
  # A closed descriptor, a file opened for writing, a template of ours.
  for error in (
    OSError(errno.EBADF, "Bad file descriptor"),
    io.UnsupportedOperation("not readable"),
    OSError(*missing, str(ROOT / "seqrnn/reporting/page.html")),
  ):
    with pytest.raises(OSError, match=re.escape(str(error))):
      ends(error)

  def no_device(*_):
    raise memory

  monkeypatch.setenv("JAX_PLATFORMS", "cuda")
  monkeypatch.setattr(jax, "devices", no_device)
  assert call(line) == 2
  err = capfd.readouterr().err
  assert err.startswith("error: JAX_PLATFORMS=cuda: no such device is avail")


# What runs in a process of its own, as a user's does.


def without_inputs(err):
  """The lines of stderr but those with the input that a workdir names."""
  return re.sub(r"^may read .* not trained here\n", "", err, flags=re.MULTILINE)


def start(*arguments: str, **more: Any) -> subprocess.CompletedProcess:
  options: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE} | more
  line = [sys.executable, *arguments]
  return subprocess.run(line, stderr=subprocess.PIPE, text=True, **options)


# All that the modes print. Orbax refuses `..`.
LINES = [
  (
    f"{LM} --workdir=lm/../chain",
    r"""devices: \d x cpu, \d+ cores?
train: [\d,]+ symbols in \d+ documents
validation: [\d,]+ symbols in \d+ documents
language_model: [\d,]+ parameters, 7 symbols and 4 special ones
step 4  epoch 0  train .* validation .* bits/symbol  accuracy .*%  best
\S*/chain: finished at step 4; best validation loss .* nats at step 4
""",
  ),
  ("--workdir=chain --mode=sample --config.sample.length=8", r"[a-e \n]*\n"),
  (
    "--workdir=chain --mode=predict --config.predict.text=abba",
    r"""abba\ufffd
(?:[┏┃┡│└].*\n)+""",
  ),
  (
    "--workdir=chain --mode=evaluate",
    r"""chain, step 4: test split, \d+ documents?
(?:[┏┃┡│└].*\n)+""",
  ),
]


def test_modes_print_their_own_lines_and_nothing_else(call, capfd):
  for line, expected in LINES:
    assert call(line) == 0
    out, err = capfd.readouterr()
    assert without_inputs(err) == "", line
    assert re.fullmatch(expected, out), out


def test_a_reader_that_goes_away_is_no_mistake():
  reader, writer = os.pipe()
  os.close(reader)
  done = start("run.py", "--help", stdout=writer)
  os.close(writer)
  assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_behind_stdout_is_named():
  if not Path("/dev/full").exists():
    pytest.skip("no /dev/full")
  with open("/dev/full", "w") as full:
    done = start("run.py", "--help", stdout=full)
  assert done.returncode == 2
  assert done.stderr == "error: stdout: No space left on device\n"


def test_cpu_devices_by_the_rule():
  for size, rows, cores, expected in (
    (256, 16, 2, 2),
    (257, 16, 2, 1),
    (256, 15, 2, 1),
    (256, 16, 1, 1),
  ):
    config = base.get_config()
    config.model.hidden_size, config.train.batch_size = size, rows
    config = merge(config, cores=cores)
    assert config.train.cpu_devices == expected, (size, rows, cores)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_program_starts_again_before_it_imports_anything():
  """And passes on all arguments, those of Python itself, too."""
  code = """
import os, runpy, sys
def execv(path, argv):
  print(path == sys.executable, argv[1:] == sys.orig_argv[1:])
  print("absl" in sys.modules, os.environ["GLIBC_TUNABLES"])
  sys.exit()
os.execv = execv
del os.environ["GLIBC_TUNABLES"]
runpy.run_path("run.py", run_name="__main__")
"""
  environment = {**os.environ, "GLIBC_TUNABLES": ""}
  done = start("-c", code, "--config=x", env=environment)
  assert done.stdout == "True True\nFalse glibc.malloc.hugetlb=1\n", done


def test_a_python_without_the_packages_is_one_line():
  done = start("-S", "run.py")  # Without site-packages.
  assert (done.returncode, done.stdout) == (2, "")
  assert re.fullmatch(r"error: .*: pip install -e \.\n", done.stderr)


@pytest.mark.slow
def test_a_training_of_one_operation_at_a_time_ends(tmp_path):
  (tmp_path / "text").write_text("To be, or not to be?\n" * 90)
  done = start(
    *("run.py", "--config=configs/base.py", f"--workdir={tmp_path / 'run'}"),
    *("--config.data.source=files", f"--config.data.path={tmp_path / 'text'}"),
    *("--config.model.hidden_size=4", "--config.data.window=2"),
    "--config.model.layers=1",
    "--config.train.batch_size=16",  # The rule would take two devices.
    env={**os.environ, "JAX_DISABLE_JIT": "1"},
  )
  assert done.returncode == 0, done.stderr
  assert "devices: 1 x cpu" in done.stdout and "2 steps\n" in done.stdout
  assert "finished at step 2" in done.stdout
