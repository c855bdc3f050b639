"""The search of benchmarks/search.py in a script with Optuna and PyTorch.

  python benchmarks/search_torch.py FOLDER   # a folder that search.py has made

It prints the seconds of the script without its imports, and the best loss.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import torch
from torch import nn

folder = Path(sys.argv[1])
settings = json.loads((folder / "settings.json").read_text())
torch.set_num_threads(settings["threads"])
begin = time.monotonic()
train, validation = (
  {name: torch.from_numpy(a) for name, a in np.load(folder / file).items()}
  for file in ("train.npz", "validation.npz")
)
V, H, layers = (settings[name] for name in ("symbols", "hidden", "layers"))


class Model(nn.Module):
  def __init__(self):
    super().__init__()
    self.embedding = nn.Embedding(V, H)
    self.body = nn.LSTM(H, H, layers, batch_first=True)
    self.head = nn.Linear(H, V)

  def forward(self, ids_BT):
    return self.head(self.body(self.embedding(ids_BT))[0])


def loss(model, batches, n):
  """Returns the loss summed over a batch, and the number of symbols."""
  logits_BTV = model(batches["inputs"][n].long())
  nll = nn.functional.cross_entropy(
    logits_BTV.flatten(0, 1),
    batches["targets"][n].long().flatten(),
    reduction="none",
  )
  weights = batches["weights"][n].flatten()
  return (nll * weights).sum(), weights.sum()


def objective(trial):
  torch.manual_seed(trial.number)
  rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
  model = Model()
  optimizer = torch.optim.Adam(model.parameters(), rate)
  best = float("inf")
  for step in range(len(train["inputs"])):
    optimizer.zero_grad()
    total, weight = loss(model, train, step)
    (total / weight).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if (step + 1) % settings["eval_every"] == 0:
      with torch.no_grad():
        parts = [
          loss(model, validation, n) for n in range(len(validation["inputs"]))
        ]
      total, weight = (sum(part).item() for part in zip(*parts, strict=True))
      best = min(best, total / weight)
  return best


optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study()
for rate in settings["rates"]:
  study.enqueue_trial({"learning_rate": rate})
study.optimize(objective, n_trials=len(settings["rates"]))
print(json.dumps([time.monotonic() - begin, study.best_value]))
