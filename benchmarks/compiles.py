"""Measures the share of sampled code that is valid Python.

  python benchmarks/compiles.py runs/rnn

The samples are of a language model of the standard library; their prime is
removed. Samples, and pieces of the test split of the same length, are cut into
blocks: a line without indentation and the indented lines below it. The first
and the last block are incomplete and are left out. A block is valid if
`compile()` accepts it.
"""

import argparse
import warnings

import numpy as np

from seqrnn.errors import UserError


def blocks(text: str) -> list[str]:
  """Returns the complete blocks of a text."""
  found: list[list[str]] = []
  for line in text.split("\n"):
    if found and (not line.strip() or line[0].isspace()):
      found[-1].append(line)
    elif line.strip() and not line[0].isspace():
      found.append([line])
  return ["\n".join(lines) + "\n" for lines in found[1:-1]]


def compiles(block: str) -> bool:
  """Returns whether a block is valid Python."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      compile(block, "block", "exec", dont_inherit=True)
  except (SyntaxError, ValueError):
    return False
  return True


def main():
  """Prints a table: source, blocks, lines a block, share of valid blocks."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("workdir")
  parser.add_argument("--texts", type=int, default=1024)
  parser.add_argument("--length", type=int, default=500)
  parser.add_argument("--prime", default="import os\nimport sys\n\n\n")
  parser.add_argument(
    "--temperature", type=float, nargs="*", default=[0.3, 0.5, 0.7, 1.0]
  )
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args()
  import experiments  # This imports JAX.
  from seqrnn.data import splits

  try:
    run = experiments.load(arguments.workdir)
  except UserError as error:
    parser.error(str(error))

  pieces = splits.reader(run.config)("test")
  corpus = [document.symbols for document in pieces.documents()]
  rng = np.random.default_rng(arguments.seed)
  sizes = np.array([max(len(text) - arguments.length, 0) for text in corpus])
  pieces = []
  for place in rng.integers(sizes.sum(), size=arguments.texts):
    n = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
    start = int(place - sizes[:n].sum())
    pieces.append(corpus[n][start : start + arguments.length])

  rows = [("test split", pieces)]
  for temperature in arguments.temperature:
    texts = run.sample(
      arguments.prime,
      temperature=temperature,
      streams=arguments.texts,
      length=arguments.length,
      seed=arguments.seed,
    )
    made = [text.removeprefix(arguments.prime) for text in texts]
    rows.append((f"temperature {temperature:g}", made))
  print("| text | blocks | lines a block | compile |")
  print("| --- | --- | --- | --- |")
  for name, texts in rows:
    found = [block for text in texts for block in blocks(text)]
    lines = sum(block.count("\n") for block in found) / max(len(found), 1)
    share = sum(map(compiles, found)) / max(len(found), 1)
    print(f"| {name} | {len(found)} | {lines:.1f} | {share:.1%} |")


if __name__ == "__main__":
  main()
