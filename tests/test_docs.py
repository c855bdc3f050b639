"""The documentation: its commands are commands, what it names exists."""

import importlib
import os
import re
import shlex
import string
from pathlib import Path

import pytest

import run
from configs import base
from seqrnn import config as configs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Last parts of names that are of no module here.
OTHERS = ("csv", "gz", "jit", "json", "xz")
LINE = re.compile(r"( {4,})?python run\.py ")


def commands(page):
  """The command lines of a page in Markdown, indented or fenced."""
  text = page.read_text("utf-8")
  # Flags that a line of shell has put into a variable.
  names = dict(re.findall(r'^ *(\w+)="([^"]*)"', text, re.M))
  fenced = False
  for line in text.replace("\\\n", " ").splitlines():
    fenced ^= line.strip().startswith("```")
    match = LINE.match(line)
    if match and (match[1] or fenced):
      yield string.Template(line.strip()).safe_substitute(names)


COMMANDS = [line for page in PAGES for line in commands(page)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
  """Where all configs are, and a run of each, which has only begun."""
  folder = tmp_path_factory.mktemp("begun")
  (folder / "configs").symlink_to(ROOT / "configs")
  for path in (ROOT / "configs").glob("*.py"):
    workdir = folder / "runs" / path.stem
    workdir.mkdir(parents=True)
    config = configs.read(path, base.get_config())
    configs.save(config, workdir / "config.json")
  return folder


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_means_a_config_and_a_workdir(line, begun, monkeypatch):
  monkeypatch.chdir(begun)
  overrides, argv = run.split(shlex.split(line, comments=True)[1:])
  parsed = run.define()
  assert parsed(argv)[1:] == []
  run.resolve(parsed, overrides)


def test_there_are_commands():
  assert len(COMMANDS) > 10
  assert not LINE.match("Call python run.py --mode=train as it is")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  for target in re.findall(
    r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")
  ):
    if not target.startswith("https://"):
      assert os.path.exists(page.parent / target), target


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_what_it_names_exists(page):
  text = page.read_text("utf-8")
  for path in re.findall(r"`([\w.]+/[\w./]+)`", text):
    assert (ROOT / path).exists(), path
  fields = configs.flat(base.get_config())
  for name in re.findall(r"`(\w+\.[\w.]+)`", text):
    module, *path = name.split(".")
    if name not in fields and path[-1] not in OTHERS:
      found = importlib.import_module(f"seqrnn.{module}")
      for part in path:
        found = getattr(found, part)
