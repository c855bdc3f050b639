"""Makes small runs of every task, and the figures that they must keep.

  python tests/earlier/make.py FOLDER

Later versions must open these runs: test_earlier.py evaluates, samples, resumes
and detects with them. The archive beside this script was made by the first
version whose workdirs are supported. Each run was stopped halfway;
`expected.json` has what that version computed from it, and the last row of
metrics.csv after it resumed and ended.
"""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STEPS = 6  # Of which half are done before the run is kept.

BASE = {
  "data.source": "files",
  "data.validation_fraction": 0.2,
  "data.test_fraction": 0.2,
  "data.window": 8,
  "model.hidden_size": 8,
  "train.batch_size": 4,
  "train.cpu_devices": 1,
  "train.eval_every": 3,
  "optimizer.learning_rate": 0.02,
  "sample.length": 20,
  "sample.temperature": 0,
}
SESSIONS = {
  "data.unit": "session",
  "data.path": "data/sessions.txt",
  "data.split": "documents",
  "data.repeats": "weight",
  "detect.folds": 2,
  "detect.path": "data/new.txt",
  "detect.bootstrap": 2,
  "detect.rate": 0.05,
}
# name -> the fields that differ from BASE.
RUNS: dict[str, dict[str, Any]] = {
  "characters": {"data.path": "data/texts", "model.dropout": 0.2},
  "stream": {
    "data.path": "data/texts",
    "data.stateful": True,
    "model.cell": "gru",
    "train.ema": 0.9,
    "optimizer.name": "rmsprop",
    "optimizer.momentum": 0.5,
  },
  "words": {
    "data.path": "data/texts",
    "data.unit": "word",
    "model.embedding_size": 8,
    "model.tied": True,
    "model.layers": 1,
    "train.asgd": 1,
    "schedule.name": "plateau",
  },
  "window": {
    "data.path": "data/texts",
    "data.unit": "byte",
    "data.mapping": "many_to_one",
    "data.step": 3,
    "model.bidirectional": True,
    "model.cell": "layer_norm_lstm",
    "optimizer.name": "adagrad",
  },
  # Windows at random offsets begin elsewhere since then.
  "offsets": {"data.path": "data/texts", "data.random_offset": True},
  "gaps": {"task": "gap_model", "data.path": "data/texts"},
  "gaps_all": {
    "task": "gap_model",
    "data.path": "data/texts",
    "model.heads": "all",
    "model.layers": 1,
  },
  "labels": {
    "task": "classification",
    "data.path": "data/labels.tsv",
    "data.format": "tab",
    "data.unit": "word",
    "model.bidirectional": True,
    "model.embedding_size": 4,
    "train.class_weights": "balanced",
  },
  "tags": {
    "task": "tagging",
    "data.path": "data/tags.txt",
    "data.format": "columns",
    "data.unit": "word",
    "model.bidirectional": True,
    "model.embedding_size": 4,
    "model.letters": 3,
  },
  "music": {
    "task": "polyphony",
    "data.source": "chords",
    "data.validation_fraction": 0.02,
    "data.test_fraction": 0.02,
    "model.layers": 1,
  },
  "sessions": SESSIONS,
  "log": {
    **SESSIONS,
    "data.unit": "log",
    "data.path": "data/service.log",
    "data.log_session": r"^(\w+):",
    "detect.path": "data/new.log",
  },
}


def write_data(folder: Path):
  """Random texts, labelled lines, tagged words, sessions and a log."""
  rng = random.Random(0)
  words = ["ab", "bac", "cab", "dad", "abba", "cede"]
  texts = folder / "texts"
  texts.mkdir(parents=True)
  for n in range(12):
    text = " ".join(rng.choices(words, k=60)).replace("dad ", "dad\n")
    (texts / f"{n}.txt").write_text(text, "utf-8")

  lines = []
  for _ in range(60):
    picked = rng.choices(words, k=rng.randint(2, 6))
    label = "first" if picked[0] in words[:3] else "second"
    lines.append(f"{label}\t{' '.join(picked)}\n")
  (folder / "labels.tsv").write_text("".join(lines), "utf-8")

  sentences = []
  for _ in range(60):
    picked = rng.choices(words, k=rng.randint(2, 6))
    rows = [f"{word}\t{'A' if 'a' in word[:1] else 'B'}\n" for word in picked]
    sentences.append("".join(rows) + "\n")
  (folder / "tags.txt").write_text("".join(sentences), "utf-8")

  after = {"a": "bc", "b": "cd", "c": "d", "d": "ae"}

  def session() -> list[str]:
    events = ["a"]
    while events[-1] != "e" and len(events) < 12:
      events.append(rng.choice(after[events[-1]]))
    return events

  normal = [session() for _ in range(80)]
  new = [session() for _ in range(20)] + [list("dddd"), list("acdxe"), ["e"]]
  for name, found in (("sessions.txt", normal), ("new.txt", new)):
    (folder / name).write_text("\n".join(map(" ".join, found)) + "\n")
  for name, found in (("service.log", normal), ("new.log", new)):
    log = (f"s{n}: does {event}\n" for n, s in enumerate(found) for event in s)
    (folder / name).write_text("".join(log))


def command(folder: Path, *arguments: str) -> str:
  """Runs run.py in a folder; its output."""
  done = subprocess.run(
    [sys.executable, str(ROOT / "run.py"), *arguments],
    cwd=folder,
    capture_output=True,
    text=True,
  )
  if done.returncode:
    raise RuntimeError(f"{arguments}: {done.stderr}")
  return done.stdout


def train(folder: Path, name: str, steps: int):
  """Trains a run up to a step."""
  flags = {**BASE, **RUNS[name], "train.max_steps": steps}
  line = [f"--config.{field}={value}" for field, value in flags.items()]
  path = ROOT / "configs" / "base.py"
  command(folder, f"--config={path}", f"--workdir=runs/{name}", *line)


def search(folder: Path, trials: int):
  """Searches with that many trials."""
  flags = {
    **BASE,
    "data.path": "data/texts",
    "train.max_steps": 3,
    "search.method": "random",
    "search.trials": trials,
    "search.workers": 1,
    "search.space.optimizer.learning_rate": "log_uniform(1e-3, 1e-1)",
  }
  line = [f"--config.{field}={value}" for field, value in flags.items()]
  path = ROOT / "configs" / "base.py"
  workdir = "--workdir=runs/search"
  command(folder, f"--config={path}", workdir, "--mode=search", *line)


def last_row(workdir: Path) -> dict[str, str]:
  """The last row of metrics.csv."""
  with (workdir / "metrics.csv").open() as file:
    return list(csv.DictReader(file))[-1]


def flags(workdir: Path) -> dict[str, str]:
  """Whether each session of the last detection is flagged."""
  with (workdir / "detect" / "sessions.csv").open() as file:
    return {row["session"]: row["flag"] for row in csv.DictReader(file)}


def expected(folder: Path, name: str) -> dict[str, Any]:
  """What a version computes from a run: figures, a sample, flags."""
  import experiments

  run = experiments.load(folder / "runs" / name)
  found: dict[str, Any] = {"test": run.evaluate("test")}
  if run.experiment.decoder is not None and name != "music":
    found["sample"] = run.sample()
  if name in ("sessions", "log"):
    found["sessions"] = flags(folder / "runs" / name)
  return found


def main():
  folder = Path(sys.argv[1]).absolute()
  sys.path.insert(0, str(ROOT))
  write_data(folder / "data")
  os.chdir(folder)
  figures = {}
  for name in RUNS:
    train(folder, name, STEPS // 2)
    if "detect.folds" in RUNS[name]:
      command(folder, f"--workdir=runs/{name}", "--mode=detect")
    figures[name] = expected(folder, name)
    kept = folder / "kept" / name
    shutil.copytree(folder / "runs" / name, kept)
    train(folder, name, STEPS)
    figures[name]["resumed"] = last_row(folder / "runs" / name)
    shutil.rmtree(folder / "runs" / name)
    kept.replace(folder / "runs" / name)
    print(name, figures[name])
  (folder / "kept").rmdir()
  search(folder, trials=2)
  for picture in (folder / "runs").glob("**/*.png"):
    picture.unlink()
  (folder / "expected.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
  main()
