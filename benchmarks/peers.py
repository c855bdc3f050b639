"""Runs and times the training step of one library, for compare.py.

python benchmarks/peers.py LIBRARY CASE makes the step of a case, given in JSON,
and warms it up. Then it reads a number of steps from each line of its standard
input, runs them, and prints the seconds of one.

All libraries train the same model on the same ids with the same loss (mean
cross-entropy over all targets), RMSprop and clipping by value, in float32
except the variants in bfloat16:

  embedding of width H -> layers x LSTM or GRU -> softmax over V symbols

Dropout, if any, is after the embedding and each layer. `towers` are a forward
and a backward stack that meet below the softmax; symbol t is predicted from the
states at t - 1 and t + 1. `one` is a bidirectional layer whose two final states
predict one symbol.
"""

import argparse
import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

RATE, DECAY, EPSILON, CLIP = 2e-3, 0.95, 1e-8, 5.0
RESERVED = 4  # Reserved ids, which are not symbols.
_LONG = 0.2  # Seconds of a step for which empty caches make no difference.


class Case(NamedTuple):
  """The sizes of a model, a batch and a window, as the module describes."""

  kind: str  # forward, towers or one
  cell: str  # lstm or gru
  layers: int
  H: int
  B: int
  T: int
  V: int
  dropout: float = 0.0


def refuse_missing(parser: argparse.ArgumentParser, *modules: str):
  """Ends with a message and status 2 if a library is not installed."""
  missing = [name for name in modules if not importlib.util.find_spec(name)]
  if missing:
    parser.error(
      f"needs {', '.join(missing)}: pip install -e '.[bench]' brings them"
    )


def tokens(case: Case) -> tuple[np.ndarray, np.ndarray]:
  """Returns inputs_BT and targets_BN, the same for all libraries."""
  rng = np.random.default_rng(0)
  shape = (case.B, case.T + 1)
  ids = rng.integers(RESERVED, case.V, shape).astype(np.int32)
  if case.kind == "towers":
    return ids[:, :-1], ids[:, :-1]
  return ids[:, :-1], ids[:, -1:] if case.kind == "one" else ids[:, 1:]


def seqrnn(case: Case, products: str = "float32"):
  """Makes the step of run.py, including the transfer of batches."""
  from seqrnn import experiments
  from seqrnn.config import derived
  from seqrnn.configs import base
  from seqrnn.data.vocabulary import Vocabulary
  from seqrnn.runtime import devices, launch, sharding
  from seqrnn.training import step as step_lib
  from seqrnn.training.step import make_start, make_step

  config = base.get_config()
  config.task = "gap_model" if case.kind == "towers" else "language_model"
  config.update_from_flattened_dict(
    {
      "data.window": case.T,
      "data.boundaries": False,
      "data.mapping": "many_to_one" if case.kind == "one" else "many_to_many",
      "model.cell": case.cell,
      "model.layers": case.layers,
      "model.hidden_size": case.H,
      "model.embedding_size": case.H,
      "model.bidirectional": case.kind == "one",
      "model.dropout": case.dropout,
      "model.products": products,
      "train.batch_size": case.B,
      "optimizer.name": "rmsprop",
      "optimizer.learning_rate": RATE,
      "optimizer.decay": DECAY,
      "optimizer.epsilon": EPSILON,
      "optimizer.clip_value": CLIP,
    }
  )
  config = derived.merge(config, cores=devices.cores())
  launch.configure_device(config.train.cpu_devices, config.train.cpu_threads)
  names = tuple(f"w{n}" for n in range(case.V - RESERVED))
  experiment = experiments.build(config, {"symbols": Vocabulary("word", names)})
  inputs, targets = tokens(case)
  batch = {
    "inputs": inputs,
    "targets": targets,
    "weights": np.ones(targets.shape, np.float32),
    "reset": np.ones(case.B, bool),
  }
  mesh = sharding.mesh()

  def optimizer(rate):
    length = step_lib.Length(rate, 1000, 1000 * config.train.epochs)
    schedule = step_lib.make_schedule(config, length)
    return step_lib.make_optimizer(config, schedule)

  state = make_start(experiment, optimizer, batch, mesh)(0)
  step = make_step(experiment, optimizer, mesh)

  def once():
    nonlocal state
    state, loss = step(state, sharding.put(batch, case.B, mesh), RATE)
    return loss

  return once


def flax(case: Case):
  """Makes a jitted step of nn.RNN over flax's cells, with optax."""
  import jax
  import jax.numpy as jnp
  import optax
  from flax import linen as nn

  cells = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}

  class Model(nn.Module):
    @nn.compact
    def __call__(self, ids_BT):
      x = nn.Embed(case.V, case.H)(ids_BT)
      x = nn.Dropout(case.dropout, deterministic=False)(x)

      def tower(x, reverse=False):
        for _ in range(case.layers):
          x = nn.RNN(
            cells[case.cell](case.H), reverse=reverse, keep_order=True
          )(x)
          x = nn.Dropout(case.dropout, deterministic=False)(x)
        return x

      ahead = tower(x)
      if case.kind == "forward":
        return nn.Dense(case.V)(ahead)
      back = tower(x, reverse=True)
      if case.kind == "one":
        y = jnp.concatenate([ahead[:, -1:], back[:, :1]], -1)
      else:
        zero = jnp.zeros_like(ahead[:, :1])
        left = jnp.concatenate([zero, ahead[:, :-1]], 1)
        right = jnp.concatenate([back[:, 1:], zero], 1)
        y = jnp.concatenate([left, right], -1)
      return nn.Dense(case.V)(y)

  model = Model()
  inputs, targets = map(jnp.asarray, tokens(case))
  optimizer = optax.chain(
    optax.clip(CLIP),
    optax.rmsprop(RATE, decay=DECAY, eps=EPSILON, eps_in_sqrt=False),
  )
  key = jax.random.key(0)
  params = jax.jit(model.init)({"params": key, "dropout": key}, inputs)

  def loss_of(params, key):
    logits = model.apply(params, inputs, rngs={"dropout": key})
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return losses.mean()

  def step(params, state, key):
    key, now = jax.random.split(key)
    loss, grads = jax.value_and_grad(loss_of)(params, now)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(params, updates), state, key, loss

  step = jax.jit(step, donate_argnums=(0, 1, 2))
  state = jax.jit(optimizer.init)(params)

  def run():
    nonlocal params, state, key
    params, state, key, loss = step(params, state, key)
    return loss

  return run


def pytorch(case: Case, threads: int, rounded: bool = False):
  """Makes a step of nn.LSTM or nn.GRU, time-major; rounded: with autocast."""
  import torch
  from torch import nn

  torch.set_num_threads(threads)
  torch.manual_seed(0)
  kinds = {"lstm": nn.LSTM, "gru": nn.GRU}

  class Model(nn.Module):
    def __init__(self):
      super().__init__()
      self.embedding = nn.Embedding(case.V, case.H)
      one = case.kind == "one"
      make = lambda: kinds[case.cell](
        case.H,
        case.H,
        case.layers,
        bidirectional=one,
        dropout=case.dropout if case.layers > 1 else 0.0,
      )
      self.ahead = make()
      two = case.kind != "forward"
      self.back = make() if case.kind == "towers" else None
      self.drop = nn.Dropout(case.dropout)
      self.head = nn.Linear(case.H * (2 if two else 1), case.V)

    def forward(self, ids_TB):
      x = self.drop(self.embedding(ids_TB))
      ahead, last = self.ahead(x)
      if case.kind == "one":
        h = last[0] if case.cell == "lstm" else last
        y = torch.cat([h[-2], h[-1]], -1)[None]
      elif case.kind == "towers":
        back = self.back(x.flip(0))[0].flip(0)
        zero = torch.zeros_like(ahead[:1])
        left = torch.cat([zero, ahead[:-1]])
        y = torch.cat([left, torch.cat([back[1:], zero])], -1)
      else:
        y = ahead
      return self.head(self.drop(y))

  model = Model()
  inputs, targets = (
    torch.tensor(a.T.copy(), dtype=torch.long) for a in tokens(case)
  )
  optimizer = torch.optim.RMSprop(
    model.parameters(), RATE, DECAY, EPSILON, foreach=True
  )
  parameters = list(model.parameters())

  def run():
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
      logits = model(inputs)
    loss = nn.functional.cross_entropy(
      logits.float().reshape(-1, case.V), targets.reshape(-1)
    )
    loss.backward()
    nn.utils.clip_grad_value_(parameters, CLIP, foreach=True)
    optimizer.step()
    return loss

  return run


def keras(case: Case):
  """Makes a step of Keras 3's layers on JAX with `train_on_batch`."""
  import keras as K

  K.utils.set_random_seed(0)
  kinds = {"lstm": K.layers.LSTM, "gru": K.layers.GRU}
  kind = kinds[case.cell]
  inputs = K.Input((case.T,), dtype="int32")
  x = K.layers.Embedding(case.V, case.H)(inputs)
  if case.dropout:
    x = K.layers.Dropout(case.dropout)(x)

  def tower(x, backwards=False):
    for n in range(case.layers):
      x = kind(
        case.H, return_sequences=True, go_backwards=backwards and n == 0
      )(x)
      if case.dropout:
        x = K.layers.Dropout(case.dropout)(x)
    return x

  if case.kind == "forward":
    y = tower(x)
  elif case.kind == "one":
    y = K.layers.Bidirectional(kind(case.H))(x)
    y = K.layers.Reshape((1, 2 * case.H))(y)
  else:
    shift = K.layers.ZeroPadding1D
    left = shift((1, 0))(K.layers.Cropping1D((0, 1))(tower(x)))
    # The outputs are in reverse order, and are flipped at the end.
    back = K.layers.Lambda(
      lambda y: K.ops.flip(y, 1), output_shape=(None, case.H)
    )(tower(x, True))
    right = shift((0, 1))(K.layers.Cropping1D((1, 0))(back))
    y = K.layers.Concatenate()([left, right])
  model = K.Model(inputs, K.layers.Dense(case.V)(y))
  model.compile(
    optimizer=K.optimizers.RMSprop(
      RATE, rho=DECAY, epsilon=EPSILON, clipvalue=CLIP
    ),
    loss=K.losses.SparseCategoricalCrossentropy(from_logits=True),
  )
  ids, targets = tokens(case)
  return lambda: model.train_on_batch(ids, targets)


def ceiling(_: Case):
  """Makes a large matrix product in float32, which measures the ceiling."""
  import jax
  import jax.numpy as jnp

  a = jax.random.normal(jax.random.key(0), (2048, 2048))
  product = jax.jit(jnp.dot)
  return lambda: product(a, a)


CEILING_FLOP = 2 * 2048**3

LIBRARIES = {
  "seqrnn": seqrnn,
  "seqrnn, bfloat16": lambda case: seqrnn(case, "bfloat16"),
  "PyTorch, 1 thread": lambda case: pytorch(case, 1),
  "PyTorch, 2 threads": lambda case: pytorch(case, 2),
  "PyTorch, bfloat16, 1 thread": lambda case: pytorch(case, 1, rounded=True),
  "PyTorch, bfloat16, 2 threads": lambda case: pytorch(case, 2, rounded=True),
  "Keras on JAX": keras,
  "flax nn.RNN": flax,
  "ceiling": ceiling,
}


def memory(field: str) -> int:
  """Returns kilobytes of this process: VmRSS is current, VmHWM is the peak."""
  for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith(field):
      return int(line.split()[1])
  raise KeyError(field)


def number(loss) -> float:
  """Returns the first number of an array of any library."""
  loss = loss.detach() if hasattr(loss, "detach") else loss
  return float(np.asarray(loss).ravel()[0])


def _import(name: str):
  """Imports the packages of a library's step."""
  if "Keras" in name:
    os.environ["KERAS_BACKEND"] = "jax"
    modules = ["keras"]
  elif "PyTorch" in name:
    modules = ["torch"]
  else:
    modules = ["optax", "flax.linen"]
    if name.startswith("seqrnn"):
      modules += [
        "run",
        "seqrnn.experiments.language_model",
        "seqrnn.experiments.gap_model",
      ]
  for module in modules:
    importlib.import_module(module)


def main():
  """Runs as many steps as each line asks for; prints the seconds."""
  name, case = sys.argv[1], Case(**json.loads(sys.argv[2]))
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # Output of libraries must not mix with the results.
  _import(name)
  before = memory("VmRSS")
  run = LIBRARIES[name](case)
  run()  # Compiles; compare.py looks at a few steps before it measures.
  last = 0.0
  for line in sys.stdin:
    if last < _LONG:
      number(run())  # Refills the CPU caches.
    start = time.perf_counter()
    for _ in range(int(line)):
      loss = run()
    loss = number(loss)
    last = (time.perf_counter() - start) / int(line)
    peak = memory("VmHWM") - before
    print(json.dumps([last, loss, peak]), file=answers, flush=True)


if __name__ == "__main__":
  main()
