"""All cells on formal languages, with equally many parameters.

  python benchmarks/formal.py                 # all trials that are missing
  python benchmarks/formal.py --cells=lstm,gru --languages=parity --workers=2
  python benchmarks/formal.py --summary       # of the trials so far

Each trial trains on strings of 1 to 40 symbols, and is tested on 41 to 100. A
cell has the largest hidden size within the budget of parameters; all trials
have the same steps. Of the learning rates that were tried, the lowest loss of
validation, on strings of 1 to 40 symbols, chooses one; nothing is chosen on
test.
The accuracy of test is that of the paper: over the answers of a length, then
the mean over the lengths 41 to 100. runs/formal/trials.jsonl has a line for
each trial; a trial that is there is not repeated. Each worker is a process of
one thread. The summary writes the tables of docs/results/formal.md.
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
  "modular_arithmetic": 100.0,
  "stack_manipulation": 59.1,
  "reverse_string": 60.9,
  "duplicate_string": 57.6,
  "odds_first": 55.6,
  "cycle_navigation": None,
  "bucket_sort": None,
  "even_pairs": None,
}
LABELLED = "parity", "even_pairs", "cycle_navigation", "modular_arithmetic"
RATES = 1e-2, 3e-3
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
  "train.max_steps": 1_000,
}


def settings(
  language: str, cell: str, rate: float, seed: int
) -> dict[str, Any]:
  """Returns the fields of a trial."""
  labelled = language in LABELLED
  return FIELDS | {
    "seed": seed,
    "task": "classification" if labelled else "tagging",
    "data.language": language,
    "data.window": 128 if labelled else 320,
    "model.cell": cell,
    "optimizer.learning_rate": rate,
  }


def accuracy(run: Any) -> float:
  """Returns the accuracy of test: the mean over the lengths of strings."""
  import jax

  from seqrnn.data.sources import formal

  experiment = run.experiment
  predict = jax.jit(experiment.predict)
  hits, counts = np.zeros((2, max(formal.TESTED) + 1))
  for batch in experiment.batches("test", 0, ordered=True, named=True):
    arrays = {n: x for n, x in batch.items() if x.dtype != object}
    _, logits_BNV = predict(run.params, (), arrays)
    hit_BN = np.asarray(logits_BNV).argmax(-1) == batch["targets"]
    # Strings are in the order of their lengths.
    place_B = batch["document"] // formal.OF_A_LENGTH
    length_B = np.array(formal.TESTED)[place_B]
    np.add.at(hits, length_B, (hit_BN * batch["weights"]).sum(1))
    np.add.at(counts, length_B, batch["weights"].sum(1))
  return float(np.mean(hits[counts > 0] / counts[counts > 0]))


def measure(trial: dict[str, Any]) -> dict[str, Any]:
  """Trains and tests; returns the line of a trial in trials.jsonl."""
  import jax

  import seqrnn

  before = resource.getrusage(resource.RUSAGE_SELF)
  with tempfile.TemporaryDirectory() as folder:
    workdir = Path(folder) / "run"
    fields = settings(**trial)
    run = seqrnn.train("base", workdir, verbose=False, **fields)
    rows = run.metrics
  best = int(np.argmin(rows["validation_loss"]))
  record = {
    **trial,
    "steps": FIELDS["train.max_steps"],
    "hidden_size": run.config.model.hidden_size,
    "parameters": sum(x.size for x in jax.tree.leaves(run.params)),
    "validation_loss": float(rows["validation_loss"][best]),
    "validation_accuracy": float(rows["validation_accuracy"][best]),
    "test_accuracy": accuracy(run),
  }
  after = resource.getrusage(resource.RUSAGE_SELF)
  used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return {**record, "cpu_seconds": round(used, 1)}


def read_trials(path: Path) -> list[dict[str, Any]]:
  """Returns the trials that are finished."""
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().splitlines()]


def work(trials: list[dict[str, Any]], path: Path):
  """Runs the trials that are missing, one by one."""
  for trial in trials:
    if not any(trial.items() <= record.items() for record in read_trials(path)):
      record = measure(trial)
      with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
      print(json.dumps(record), flush=True)


def summary(path: Path):
  """Writes the tables of the trials that are finished."""
  from seqrnn.models.cells import CELLS

  trials = read_trials(path)
  rates = sorted({trial["rate"] for trial in trials})
  chosen = {
    (trial["language"], trial["cell"]): trial
    for trial in sorted(trials, key=lambda trial: -trial["validation_loss"])
  }  # The last one, with the lowest loss, stays.
  languages = [name for name in PUBLISHED if any(name == n for n, _ in chosen)]

  def of(cell: str, field: str) -> list[float | None]:
    some = [chosen.get((name, cell)) for name in languages]
    return [trial and 100 * trial[field] for trial in some]

  def row(name: str, size: str, figures: list[float | None]) -> list[str]:
    return [name, size, *("-" if x is None else f"{x:.1f}" for x in figures)]

  cells = [cell for cell in sorted(CELLS) if any(cell == c for _, c in chosen)]
  sizes = {
    cell: str(trial["hidden_size"]) for (_, cell), trial in chosen.items()
  }
  tables = [
    [row(cell, sizes[cell], of(cell, field)) for cell in cells]
    for field in ("test_accuracy", "validation_accuracy")
  ]
  published = [PUBLISHED[name] for name in languages]
  tables[0].append(row("LSTM, published", "256", published))
  head = ["cell", "hidden size", *(n.replace("_", " ") for n in languages)]
  missing = len(CELLS) * len(PUBLISHED) * len(rates) - len(trials)
  seconds = sum(trial["cpu_seconds"] for trial in trials)
  text = [
    f"Accuracy in percent. Learning rates: {', '.join(map(str, rates))}."
    f" {FIELDS['train.max_steps']:,} steps of {FIELDS['train.batch_size']}"
    f" strings, at most {FIELDS['model.parameters']:,} parameters, seed 0."
    f" {len(trials)} trials took {seconds / 60:.1f} minutes of CPU time;"
    f" {missing} are not yet run. {versions()}.",
    "Test, strings of 41 to 100 symbols:",
    table(head, tables[0]),
    "Validation, strings of 1 to 40 symbols that training does not have:",
    table(head, tables[1]),
  ]
  put(_TEXT, _MARKS, "\n\n".join(text))


def main(argv: list[str] | None = None):
  """Starts workers for the missing trials, then summarises."""
  from seqrnn.models.cells import CELLS

  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--cells", default=",".join(CELLS))
  parser.add_argument("--languages", default=",".join(PUBLISHED))
  parser.add_argument("--rates", default=",".join(map(str, RATES)))
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--workers", type=int, default=1)
  parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
  parser.add_argument("--cache", type=Path, default=_ROOT / "runs" / "formal")
  parser.add_argument("--summary", action="store_true")
  arguments = parser.parse_args(argv)
  path = arguments.cache.resolve() / "trials.jsonl"
  trials = [
    {
      "language": language,
      "cell": cell,
      "rate": float(rate),
      "seed": arguments.seed,
    }
    for rate in arguments.rates.split(",")
    for language in arguments.languages.split(",")
    for cell in arguments.cells.split(",")
  ]
  if arguments.worker is not None:
    work(trials[arguments.worker :: arguments.workers], path)
    return
  if not arguments.summary:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = sys.argv[1:] if argv is None else argv
    workers = [
      subprocess.Popen(
        ["nice", "-n", "10", sys.executable, __file__, *flags, f"--worker={n}"],
        env=os.environ | {"PJRT_NPROC": "1"},
        cwd=_ROOT,
      )
      for n in range(arguments.workers)
    ]
    if any([worker.wait() for worker in workers]):
      raise SystemExit(1)
  summary(path)


if __name__ == "__main__":
  main()
