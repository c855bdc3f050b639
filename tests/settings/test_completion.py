"""What a shell completes a command line to."""

import os
import pty
import select
import shutil
import subprocess

import pytest

from seqrnn import program
from seqrnn.settings import completion

FLAGS = list(program.define())
BASH = shutil.which("bash")
ASK = """
COMP_LINE=$1 COMP_POINT=${#1}
COMP_WORDBREAKS=${2-$COMP_WORDBREAKS}
_seqrnn
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def complete():
  """A function from a line to what bash completes its last word to."""
  if BASH is None:
    pytest.skip("no bash")
  text = completion.script("bash", FLAGS) + ASK

  def ask(*arguments, cwd=None):
    done = subprocess.run(
      [BASH, "--norc", "-c", text, "bash", *arguments],
      capture_output=True,
      text=True,
      cwd=cwd,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()

  return ask


@pytest.mark.parametrize(
  ("line", "expected"),
  [
    ("seqrnn --mode=de", ["describe", "detect"]),
    ("seqrnn --config=brnn --mode=tr", ["train"]),
    ("seqrnn --config=br", ["brnn"]),
    ("seqrnn --config.optimizer.name=ad", ["adagrad", "adam", "adamw"]),
    ("seqrnn --schedule.name=st", ["step"]),
    ("seqrnn --data.stateful=", ["true", "false"]),
    ("seqrnn --config.model.hid", ["--config.model.hidden_size="]),
    ("seqrnn --model.hid", ["--model.hidden_size="]),
    ("seqrnn --work", ["--workdir="]),
    ("seqrnn --train.epochs=1", []),
    ("seqrnn --nothing", []),
  ],
)
def test_bash_completes(complete, line, expected, tmp_path):
  assert complete(line, cwd=tmp_path) == expected


def test_bash_completes_files_and_whole_words(complete, tmp_path):
  (tmp_path / "mine.json").write_text("")
  assert complete("seqrnn --config=mi", cwd=tmp_path) == ["mine.json"]
  assert complete("seqrnn --data.path=mi", cwd=tmp_path) == ["mine.json"]
  # In a shell in which = breaks no words.
  assert complete("seqrnn --mode=tr", " \n") == ["--mode=train"]
  assert complete("seqrnn --model.hid", " \n") == ["--model.hidden_size="]


ZSH = shutil.which("zsh")
START = """
fpath=({folder} $fpath)
autoload -U compinit
compinit -u -d {folder}/dump
print ready
"""


@pytest.mark.skipif(ZSH is None, reason="no zsh")
def test_zsh_completes(tmp_path):
  """In a terminal, as zsh completes nowhere else."""
  assert ZSH is not None
  (tmp_path / "_seqrnn").write_text(completion.script("zsh", FLAGS))
  (tmp_path / ".zshrc").write_text(START.format(folder=tmp_path))
  (tmp_path / "mine.json").touch()
  environment = os.environ | {"ZDOTDIR": str(tmp_path), "TERM": "dumb"}
  here, there = pty.openpty()
  ends = dict.fromkeys(("stdin", "stdout", "stderr"), there)
  shell = subprocess.Popen(
    [ZSH, "-i"], cwd=tmp_path, env=environment, start_new_session=True, **ends
  )

  def wait_for(text):
    seen = ""
    while text not in seen:
      assert select.select([here], [], [], 20)[0], seen
      seen += os.read(here, 65536).decode(errors="replace")

  try:
    wait_for("ready")
    for line, text in (
      ("--config=br", "--config=brnn "),
      ("--config=mi", "--config=mine.json "),
      ("--mode=de", "describe  detect"),
      ("--config=rnn --model.hid", "--model.hidden_size="),
      ("--schedule.name=st", "--schedule.name=step "),
    ):
      os.write(here, f"seqrnn {line}\t".encode())
      wait_for(text)
      os.write(here, b"\x15")  # Ctrl-U deletes the line.
  finally:
    shell.kill()
    shell.wait()
    os.close(here)
    os.close(there)


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_a_script_is_one_that_the_shell_can_read(shell, capsys):
  assert program.main(["seqrnn", f"--completion={shell}"]) == 0
  text = capsys.readouterr().out
  if path := shutil.which(shell):
    subprocess.run([path, "-n"], input=text, text=True, check=True)
  assert "--config.model.hidden_size=" in text and "brnn" in text


def test_another_shell_is_refused(capsys):
  assert program.main(["seqrnn", "--completion=fish"]) == 2
  assert capsys.readouterr().err == (
    "error: --completion=fish: must be one of bash, zsh\n"
  )
