"""Measures the wall time to a validation loss on tinyshakespeare.

  pip install -e '.[bench]'
  python benchmarks/walltime.py --data=input.txt [--loss=1.394] [--rounds=1]

PyTorch and seqrnn read char-rnn's split of the text: 50 streams, of which the
last 5 % validate. They evaluate after each epoch, and stop when the loss is
reached. PyTorch: nn.LSTM with char-rnn's recipe and a thread for each core.
seqrnn: run.py with the recipe below. The time is from the command to the end of
the last evaluation, in rounds that alternate. The result is a Markdown table.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from peers import refuse_missing

ROOT = Path(__file__).resolve().parents[1]
# An installation has no run.py.
sys.path.insert(0, str(ROOT))
EPOCHS = 50  # The maximum of PyTorch.
RECIPE = {
  "model.layers": 1,
  "model.hidden_size": 256,
  "optimizer.learning_rate": 1.4e-2,
  "schedule.name": "cosine",
  "train.ema": 0.995,
  "train.epochs": 4,
}


def arguments(data: str, fields: dict) -> list[str]:
  """Returns the arguments of run.py."""
  flags = {"data.source": "files", "data.path": data, **fields}
  return ["--config=configs/char_rnn.py"] + [
    f"--config.{name}={value}" for name, value in flags.items()
  ]


def losses(command: list[str]) -> Iterator[tuple[float, int]]:
  """Yields the validation losses that a command prints after each epoch."""
  child = subprocess.Popen(
    [sys.executable, *command],
    stdout=subprocess.PIPE,
    cwd=ROOT,
    text=True,
  )
  assert child.stdout
  try:
    for line in child.stdout:
      words = line.split()
      if "validation" in words and "epoch" in words:
        loss = float(words[words.index("validation") + 1])
        yield loss, int(words[words.index("epoch") + 1])
  finally:
    child.kill()
    child.wait()


def reach(command: list[str], goal: float) -> tuple[float, float, int]:
  """Returns the seconds to the goal, the loss and the number of epochs."""
  begin, best, last = time.monotonic(), float("inf"), 0
  for loss, epoch in losses(command):
    best, last = min(best, loss), epoch
    if loss <= goal:
      break
  seconds = time.monotonic() - begin
  return (seconds if best <= goal else float("nan")), best, last


def char_rnn(data: str):
  """Trains char-rnn's recipe in PyTorch; prints a line after each epoch."""
  import torch

  import experiments
  from configs import char_rnn as recipe

  config = recipe.get_config()
  config.data.source, config.data.path = "files", data
  made = experiments.build(config, None)
  V = len(made.vocabularies["symbols"])
  torch.manual_seed(0)
  lstm = torch.nn.LSTM(V, 128, 2, batch_first=True)
  head = torch.nn.Linear(128, V)
  parameters = [*lstm.parameters(), *head.parameters()]
  for parameter in parameters:
    torch.nn.init.uniform_(parameter, -0.08, 0.08)
  with torch.no_grad():  # The forget gate is the second of four.
    for bias in (lstm.bias_ih_l0, lstm.bias_ih_l1):
      bias[128:256] = 1.0
    for bias in (lstm.bias_hh_l0, lstm.bias_hh_l1):
      bias[128:256] = 0.0
  optimizer = torch.optim.RMSprop(parameters, 2e-3, alpha=0.95)

  def pass_over(split: str, epoch: int, train: bool) -> float:
    state, total, weight = None, 0.0, 0.0
    for batch in made.batches(split, epoch):
      inputs = torch.from_numpy(batch["inputs"]).long()
      targets = torch.from_numpy(batch["targets"]).long()
      y, state = lstm(torch.nn.functional.one_hot(inputs, V).float(), state)
      state = tuple(s.detach() for s in state)
      some = torch.from_numpy(batch["weights"]) > 0
      loss = torch.nn.functional.cross_entropy(
        head(y)[some], targets[some], reduction="sum"
      )
      if train:
        optimizer.zero_grad()
        (loss / some.sum()).backward()
        torch.nn.utils.clip_grad_value_(parameters, 5 / 50)
        optimizer.step()
      total, weight = total + loss.item(), weight + some.sum().item()
    return total / weight

  for epoch in range(1, EPOCHS + 1):
    for group in optimizer.param_groups:
      group["lr"] = 2e-3 * 0.97 ** max(0, epoch - 10)
    pass_over("train", epoch, True)
    with torch.no_grad():
      print("epoch", epoch, "validation", pass_over("validation", 0, False))


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--data", required=True)
  parser.add_argument("--loss", type=float, default=1.394)
  parser.add_argument("--rounds", type=int, default=1)
  parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
  given = parser.parse_args()
  if not Path(given.data).is_file():
    parser.error(f"--data={given.data}: no such file")
  refuse_missing(parser, "torch")
  data = str(Path(given.data).resolve())
  if given.peer:
    return char_rnn(data)
  print("| what | seconds | loss | epochs |\n| --- | --- | --- | --- |")
  found: dict[str, list[float]] = {}
  for _ in range(given.rounds):
    with tempfile.TemporaryDirectory() as workdir:
      ours = ["run.py", *arguments(data, RECIPE), f"--workdir={workdir}/run"]
      theirs = ["-u", __file__, f"--data={data}", "--peer"]
      for name, command in (("seqrnn", ours), ("PyTorch", theirs)):
        seconds, loss, epochs = reach(command, given.loss)
        found.setdefault(name, []).append(seconds)
        print(f"| {name} | {seconds:.0f} | {loss:.4f} | {epochs} |", flush=True)
  ratio = statistics.median(
    b / a for a, b in zip(found["seqrnn"], found["PyTorch"], strict=True)
  )
  print(f"\nPyTorch's time over seqrnn's: {ratio:.2f}")


if __name__ == "__main__":
  main()
