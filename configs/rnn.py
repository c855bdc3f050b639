"""Language model: two LSTM layers on the Python standard library."""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.model.layers = 2
  config.model.dropout = 0.2
  return config
