"""Trains the models of folds side by side, each on some documents of a run.

All take the steps of the run: its batches and its compiled program. Only the
weights of the rows differ: for a model, a row counts those of its equal
documents that this model is trained on, perhaps none. On a CPU, a program with
an axis over small models takes as long as this one for one model after the
other, and XLA compiles it for longer than they train.
"""

import time
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np

from seqrnn.config.read import Config
from seqrnn.errors import Interrupted, UserError
from seqrnn.experiment import Build, Experiment
from seqrnn.runtime import sharding
from seqrnn.runtime.signals import Signals, catch_signals
from seqrnn.training import checkpoint, setup
from seqrnn.training.checkpoint_writer import open_checkpoints
from seqrnn.training.probe import probe
from seqrnn.training.progress import Progress
from seqrnn.training.setup import Training
from seqrnn.training.train import initial_state, make_training

_SAVE_SECONDS = 30.0  # Between two checkpoints; a signal saves one, too.


def fit_folds(
  build: Build,
  config: Config,
  experiment: Experiment,
  folders: list[Path],
  trains_KD: np.ndarray,
  last: int,
):
  """Trains or resumes K models until step `last`, and saves them.

  They are not evaluated: no validation split selects a checkpoint, or lowers
  the learning rate as `schedule.name=plateau` does for the run.

  Args:
    build: a function config, vocabularies -> Experiment.
    config: of the run, as it is resolved.
    experiment: of the run.
    folders: of the models.
    trains_KD: bool, whether a model is trained on a document of the training
      split.
    last: the number of steps.

  Raises:
    UserError: another process trains them, the data are not those of trains_KD,
      or a value is not finite.
    Interrupted: SIGINT or SIGTERM was received; checkpoints are on disk.
  """
  known = lambda c, *names: experiment if c is config else build(c, *names)
  models: list[Training] = []
  with catch_signals() as caught, ExitStack() as stack:
    for folder in folders:
      folder.mkdir(parents=True, exist_ok=True)
      setup.write_record(config, experiment, folder)  # It is resolved already.
      model = make_training(known, config, folder)
      setup.write_record(config, experiment, folder, model.record)
      writer = stack.enter_context(open_checkpoints(folder, keep=2))
      models.append(model._replace(checkpoints=writer))
    step = _train(models, trains_KD, last, caught)
  if caught:
    event = f" and saved at step {step} of {last} of the folds"
    raise Interrupted(caught[0], event)


def _train(
  models: list[Training], trains_KD: np.ndarray, last: int, caught: Signals
) -> int:
  """Trains until step `last` or a signal; returns the step that is saved."""
  first, saved, documents = models[0], time.monotonic(), trains_KD.shape[1]
  # A killed process may have saved some of the models once more than others.
  step = min(checkpoint.newest(x.workdir / "checkpoints") for x in models)
  for model in models:
    model.checkpoints.delete_after(step)
  state, position = setup.restore(first)
  state = state or initial_state(first)
  # A step donates its state. Unlike jnp.copy, this compiles nothing.
  places = jax.tree.map(lambda x: x.sharding, state)
  copy = lambda: jax.device_put(state, places, may_alias=False)
  states = [state, *(setup.restore(x)[0] or copy() for x in models[1:])]
  probe(first.step, state, first.experiment, first.mesh)

  def save():
    for model, state in zip(models, states, strict=True):
      setup.save(model, state, position)

  with Progress(first, position) as progress:
    while position.step < last and not caught:
      epoch = first.experiment.batches("train", position.epoch, placed=True)
      if (distinct := epoch.distinct) is None or len(distinct) != documents:
        raise UserError(f"{first.workdir}: the training data have changed")
      # Of the equal documents of a row, the share that trains each model.
      own_KD = np.stack([np.bincount(distinct, x) for x in trains_KD])
      shares_KD = (own_KD / np.bincount(distinct)).astype(np.float32)
      for batch in epoch[position.batch :][: last - position.step]:
        document_B, weights_BN = batch.pop("document"), batch.pop("weights")
        del batch["place"]
        batch = sharding.put(batch, epoch.batch_size, first.mesh)
        for k, share_D in enumerate(shares_KD):
          own = {"weights": weights_BN * share_D[document_B, None]}
          own = sharding.put(own, epoch.batch_size, first.mesh)
          states[k], loss = first.step(states[k], batch | own)
        progress.step(loss, int(np.count_nonzero(weights_BN)))
        position.advance(len(epoch))
        if time.monotonic() - saved > _SAVE_SECONDS:
          save()
          saved = time.monotonic()
        if caught:
          break
  save()
  return position.step
