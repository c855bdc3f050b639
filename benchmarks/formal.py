"""Cells on formal languages, with equally many parameters.

  python benchmarks/formal.py               # all trials that are missing
  python benchmarks/formal.py --cells=lstm,gru --languages=parity --workers=2
  python benchmarks/formal.py --seeds=1,2 --languages=s3  # two more of each
  python benchmarks/formal.py --summary     # writes the page of these tables

Each trial trains on strings of 1 to 40 symbols, and is tested on 41 to 100 and,
where a string has one label, on 101 to 500. A cell has the largest hidden size
within the budget of parameters; all trials have the same steps. Trials of 1,000
steps choose one of two learning rates, by the lowest loss of validation, on
strings of 1 to 40 symbols; nothing is chosen on test. The accuracy of test is
that of the paper: over the answers of a length, then the mean over the lengths.
runs/formal/trials.jsonl has a line for each trial; a trial that is there is not
repeated, so a table that was interrupted resumes. Each worker is a process of
one thread. `--summary` writes the tables of all these trials to
docs/results/formal.md; without it, they are printed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pages import put, table, versions

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))
_TEXT = _ROOT / "docs" / "results" / "formal.md"
_MARKS = "<!-- benchmarks/formal.py: -->", "<!-- :tables -->"
# The LSTM of Delétang et al. 2023, table 5, in percent. None: not given here.
PUBLISHED = {
  "parity": 100.0,
  "cycle_navigation": None,
  "modular_arithmetic": 100.0,
  "s3": None,
  "stack_manipulation": 59.1,
  "reverse_string": 60.9,
  "duplicate_string": 57.6,
  "odds_first": 55.6,
  "bucket_sort": None,
  "even_pairs": None,
}
GROUPS = "parity", "cycle_navigation", "modular_arithmetic", "s3"
LABELLED = (*GROUPS, "even_pairs")
CELLS = ("lstm", "gru", "slstm", "rnn_tanh", "lru", "rg_lru")
CELLS += ("min_gru", "min_gru_signed", "min_gru_untied")
MATRIX = "mlstm", "deltanet_signed", "deltaproduct_2"
CELLS += MATRIX
HEADS = 8  # Of these; with one, at few symbols, a state has 100,000 numbers.
RATES = 1e-2, 3e-3
SHORT, STEPS = 1_000, 10_000  # Of a trial that chooses a rate; of the others.
FIELDS = {
  "data.source": "formal",
  "data.buckets": 1,
  "model.layers": 1,
  "model.parameters": 8_000,
  "optimizer.clip_norm": 1.0,
  "schedule.name": "cosine",
  "train.batch_size": 64,
  "train.cpu_devices": 1,
  "train.epochs": 100,
  "train.eval_every": 500,
}


def settings(
  language: str, cell: str, rate: float, seed: int, steps: int
) -> dict[str, Any]:
  """Returns the fields of a trial."""
  labelled = language in LABELLED
  return FIELDS | {
    "seed": seed,
    "task": "classification" if labelled else "tagging",
    "data.language": language,
    "data.window": 128 if labelled else 320,
    "model.cell": cell,
    "model.cell_heads": HEADS if cell in MATRIX else 1,
    "optimizer.learning_rate": rate,
    "train.max_steps": steps,
  }


def accuracy(run: Any, split: str, lengths: range) -> float:
  """Returns the accuracy of test: the mean over the lengths of strings."""
  import jax

  from seqrnn import experiments
  from seqrnn.data import splits
  from seqrnn.data.sources import formal

  config = run.config.copy_and_resolve_references()
  config.data.window = max(config.data.window, lengths[-1])
  experiment = experiments.build(config, run.experiment.vocabularies)
  pieces = splits.whole(formal.strings(config.data.language, split))
  predict = jax.jit(experiment.predict)
  hits, counts = np.zeros((2, len(lengths)))
  for batch in experiment.batches(pieces, 0, ordered=True, named=True):
    arrays = {n: x for n, x in batch.items() if x.dtype != object}
    _, logits_BNV = predict(run.params, (), arrays)
    hit_BN = np.asarray(logits_BNV).argmax(-1) == batch["targets"]
    # Strings are in the order of their lengths.
    place_B = batch["document"] * len(lengths) // len(pieces)
    np.add.at(hits, place_B, (hit_BN * batch["weights"]).sum(1))
    np.add.at(counts, place_B, batch["weights"].sum(1))
  return float(np.mean(hits / counts))


def measure(trial: dict[str, Any]) -> dict[str, Any]:
  """Trains and tests; returns the line of a trial in trials.jsonl."""
  import jax

  import seqrnn
  from seqrnn.data.sources import formal

  before = resource.getrusage(resource.RUSAGE_SELF)
  with tempfile.TemporaryDirectory() as folder:
    workdir = Path(folder) / "run"
    fields = settings(**trial)
    run = seqrnn.train("base", workdir, verbose=False, **fields)
    rows = run.metrics
  best = int(np.argmin(rows["validation_loss"]))
  record = {
    **trial,
    "hidden_size": run.config.model.hidden_size,
    "parameters": sum(x.size for x in jax.tree.leaves(run.params)),
    "validation_loss": float(rows["validation_loss"][best]),
    "validation_accuracy": float(rows["validation_accuracy"][best]),
    "test_accuracy": accuracy(run, "test", formal.TESTED),
  }
  if trial["language"] in LABELLED:
    record["long_accuracy"] = accuracy(run, "long", formal.LONG)
  after = resource.getrusage(resource.RUSAGE_SELF)
  used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return {**record, "cpu_seconds": round(used, 1)}


def read_trials(path: Path) -> list[dict[str, Any]]:
  """Returns the trials that are finished."""
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().splitlines()]


def trial(path: Path, **asked: Any) -> dict[str, Any]:
  """Returns the record of a trial, which runs if it is missing."""
  for record in read_trials(path):
    if asked.items() <= record.items():
      return record
  record = measure(asked)
  with path.open("a") as file:
    file.write(json.dumps(record) + "\n")
  print(json.dumps(record), flush=True)
  return record


def work(pairs: list[tuple[str, str]], arguments: Any, path: Path):
  """Runs the trials of cells on languages that are missing, one by one."""
  for language, cell in pairs:
    asked = {"language": language, "cell": cell}
    short = [
      trial(path, **asked, rate=rate, seed=0, steps=SHORT) for rate in RATES
    ]
    rate = min(short, key=lambda record: record["validation_loss"])["rate"]
    for seed in arguments.seeds.split(","):
      steps = arguments.steps
      trial(path, **asked, rate=rate, seed=int(seed), steps=steps)


def tables(every: list[dict[str, Any]], steps: int) -> list[str]:
  """Returns the parts of the page on the trials of so many steps."""
  trials: dict[tuple[str, str], dict[int, Any]] = {}
  some = [record for record in every if record["steps"] == steps]
  for record in sorted(some, key=lambda record: -record["validation_loss"]):
    place = record["language"], record["cell"]
    trials.setdefault(place, {})[record["seed"]] = record  # The lowest loss.
  languages = [name for name in PUBLISHED if any(name == n for n, _ in trials)]
  order = {cell: number for number, cell in enumerate(CELLS)}
  cells = sorted({record["cell"] for record in some})
  cells.sort(key=lambda cell: order.get(cell, len(order)))

  def text(cell: str, language: str, field: str) -> str:
    seeds = trials.get((language, cell), {})
    each = [100 * seeds[n][field] for n in sorted(seeds) if field in seeds[n]]
    return ", ".join(f"{x:.1f}" for x in each) or "-"

  def sizes(cell: str) -> str:
    all_sizes = {r["hidden_size"] for r in some if r["cell"] == cell}
    return ", ".join(map(str, sorted(all_sizes)))  # Of several languages.

  def rows(field: str) -> list[list[str]]:
    return [
      [cell, sizes(cell), *(text(cell, name, field) for name in languages)]
      for cell in cells
    ]

  published = [PUBLISHED[name] for name in languages]
  published = ["-" if x is None else f"{x:.1f}" for x in published]
  head = ["cell", "hidden size", *(n.replace("_", " ") for n in languages)]
  seconds = sum(record["cpu_seconds"] for record in some)
  return [
    f"### {steps:,} steps",
    f"Accuracy in percent; several figures are several seeds. {steps:,} steps"
    f" of {FIELDS['train.batch_size']} strings, at most"
    f" {FIELDS['model.parameters']:,} parameters, at the better of the rates"
    f" {RATES[0]} and {RATES[1]}. {len(some)} trials took"
    f" {seconds / 3600:.1f} hours of CPU time. {versions()}.",
    "Strings of 41 to 100 symbols:",
    table(
      head, [*rows("test_accuracy"), ["LSTM, published", "256", *published]]
    ),
    "Strings of 101 to 500 symbols:",
    table(head, rows("long_accuracy")),
    "Validation, strings of 1 to 40 symbols that training does not have:",
    table(head, rows("validation_accuracy")),
  ]


def summary(path: Path) -> str:
  """Returns the tables of the trials that are finished."""
  every = read_trials(path)
  parts = [
    part
    for steps in sorted({record["steps"] for record in every})
    for part in tables(every, steps)
  ]
  return "\n\n".join(parts)


def main(argv: list[str] | None = None):
  """Runs the trials that are missing and prints the tables, or writes them."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--cells", default=",".join(CELLS))
  parser.add_argument("--languages", default=",".join(GROUPS))
  parser.add_argument("--seeds", default="0")
  parser.add_argument("--steps", type=int, default=STEPS)
  parser.add_argument("--workers", type=int, default=1)
  parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
  parser.add_argument("--cache", type=Path, default=_ROOT / "runs" / "formal")
  parser.add_argument("--summary", action="store_true")
  arguments = parser.parse_args(argv)
  path = arguments.cache.resolve() / "trials.jsonl"
  pairs = [
    (language, cell)
    for language in arguments.languages.split(",")
    for cell in arguments.cells.split(",")
  ]
  if arguments.worker is not None:
    work(pairs[arguments.worker :: arguments.workers], arguments, path)
    return
  if arguments.summary:
    if not read_trials(path):
      parser.error(f"--cache={arguments.cache}: has no trials")
    put(_TEXT, _MARKS, summary(path))
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  flags = sys.argv[1:] if argv is None else argv
  workers = [
    subprocess.Popen(
      ["nice", "-n", "10", sys.executable, __file__, *flags, f"--worker={n}"],
      env={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ}
      | {"PJRT_NPROC": "1"},
      cwd=_ROOT,
    )
    for n in range(arguments.workers)
  ]
  if any([worker.wait() for worker in workers]):
    raise SystemExit(1)
  print(summary(path))


if __name__ == "__main__":
  main()
