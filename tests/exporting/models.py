"""Models of all kinds with large random parameters, which tests share."""

import functools

import jax
import numpy as np

from seqrnn import experiments
from seqrnn.configs import base
from seqrnn.data.read import terms
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.training.checkpoint import Position
from seqrnn.training.checkpoint_writer import Checkpoints
from seqrnn.training.setup import write_record
from tests.conftest import random_params

SYMBOLS = Vocabulary("char", tuple("abcde \n"))
LABELS = Vocabulary("id", ("x", "y", "z"))
LABELLED = ("classification", "tagging")
BOTH, DEEP = {"model.bidirectional": True}, {"model.layers": 2}
GRU, GAPS = {"model.cell": "gru"}, {"task": "gap_model"}
TIED = {"model.embedding_size": 5, "model.tied": True}
MODELS = {
  "lstm": DEEP,
  "gru": GRU | TIED,
  "heads": GAPS | DEEP | {"model.heads": "all"},
  "tied gap": GAPS | GRU | TIED | {"model.embedding_size": 10},
  "classifier": {"task": "classification", **BOTH, **DEEP},
  "mean": {"task": "classification", "model.pooling": "mean", **BOTH},
  "max": {
    "task": "classification",
    "model.pooling": "max",
    "model.cell": "rnn_relu",
  },
  "tagger": {"task": "tagging", **GRU, **BOTH, **DEEP},
  "music": {"task": "polyphony"},
}
# Models without layers of torch.nn: safetensors alone.
WIDE = {"task": "classification", "model.wide": True, "train.choice": "last"}
FOREIGN = {
  "lru": {"model.cell": "lru", "model.block": "residual"} | DEEP,
  "nade": {"task": "polyphony", "model.nade": 3},
  "wide": WIDE,
  "fitted wide": WIDE,
}


@functools.cache
def new_model(name, **more):
  """The experiment, the config and the parameters of a model."""
  config = base.get_config()
  config.model.hidden_size, config.model.layers = 5, 1
  config.update_from_flattened_dict({**MODELS, **FOREIGN}[name])
  more = {key.replace("__", "."): value for key, value in more.items()}
  config.update_from_flattened_dict(more)
  vocabularies = {"symbols": SYMBOLS}
  if config.task in LABELLED:
    vocabularies["labels"] = LABELS
  if config.model.wide:
    vocabularies["terms"] = terms.vocabulary(["ab"], config.data.unit, None)
  if config.task == "polyphony":
    vocabularies = {}
  experiment = experiments.build(config, vocabularies)
  return experiment, config, random_params(experiment, 1, 0.6)


def inputs_of(experiment, lengths, width):
  """Random ids [B, T] padded at the end, or frames [B, T, 88]."""
  rng = np.random.default_rng(2)
  T = max(lengths)
  if experiment.reads != "symbol":
    return rng.integers(0, 2, (len(lengths), T, width)).astype(np.int32)
  ids_BT = rng.integers(1, width, (len(lengths), T)).astype(np.int32)
  ids_BT[np.arange(T)[None] >= np.array(lengths)[:, None]] = 0
  return ids_BT


def predict(experiment, params, inputs):
  """The outputs of `Experiment.predict`, without the reserved labels."""
  batch = {"inputs": inputs, "reset": np.ones(len(inputs), bool)}
  _, outputs = jax.jit(experiment.predict)(params, (), batch)
  return np.asarray(outputs)[..., 4 if experiment.labels is not None else 0 :]


def write_run(workdir, name, **more):
  """A run of a model, as training writes it."""
  experiment, config, params = new_model(name, **more)
  with Checkpoints(workdir / "checkpoints") as checkpoints:
    state = {"leaves": [np.zeros(1)]}
    params = jax.tree.map(np.asarray, params)
    checkpoints.save(params, state, Position(step=7, best_step=7))
  write_record(config, experiment, workdir)
  return experiment, config, params
