r"""x."""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """The recipe."""
  config = base.get_config()
  config.task = "polyphony"
  data = config.data
  data.source = "chords"
  data.window = 64

  config.model.hidden_size = 128
  config.model.layers = 1
  config.model.dropout = 0.3

  config.optimizer.learning_rate = 4e-3
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 16
  config.train.epochs = 10
  return config
