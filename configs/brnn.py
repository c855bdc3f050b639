"""Gap model: one bidirectional LSTM layer on the Python standard library."""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.task = "gap_model"
  config.model.layers = 1
  return config
