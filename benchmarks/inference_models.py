"""The models that inference.py measures: seqrnn's, PyTorch's and Keras's."""

import string
from collections.abc import Callable
from typing import Any

V, WINDOW = 65, 40
NAMES = tuple((string.ascii_letters + string.digits)[: V - 4])
# By library, the number of symbols and the function that processes them.
Work = dict[str, tuple[int, Callable[[], Any]]]


def experiment(H: int, window: int = WINDOW, products: str = "float32"):
  """Returns a language model and its parameters."""
  import jax

  from seqrnn import experiments
  from seqrnn.configs import base
  from seqrnn.data.vocabulary import END, Vocabulary

  config = base.get_config()
  config.model.products = products
  config.model.hidden_size = H
  config.model.embedding_size = H
  config.data.window = window
  model = experiments.build(config, {"symbols": Vocabulary("char", NAMES)})
  params = model.init(jax.random.key(0))
  # Without an end symbol, sampling does not stop early.
  bias_V = params["head"]["bias"]
  params["head"]["bias"] = bias_V.at[END].set(-1e9)
  return model, params


def torch_model(H: int):
  """Returns the same model in PyTorch."""
  import torch

  class Model(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.embedding = torch.nn.Embedding(V, H)
      self.lstm = torch.nn.LSTM(H, H, 2, batch_first=True)
      self.head = torch.nn.Linear(H, V)

    def forward(self, ids_BT, state=None):
      """Logits_BTV and the state."""
      y, state = self.lstm(self.embedding(ids_BT), state)
      return self.head(y), state

  return Model().eval()


def keras_model(H: int, sequences: bool):
  """Returns the same model in Keras, for the last symbol or for all."""
  import keras

  return keras.Sequential(
    [
      keras.layers.Embedding(V, H),
      keras.layers.LSTM(H, return_sequences=True),
      keras.layers.LSTM(H, return_sequences=sequences),
      keras.layers.Dense(V),
    ]
  )


def pytorch(count: int, once: Callable[[], Any]) -> Work:
  """Returns a function in each type and with each number of threads."""
  import torch

  def run(threads: int, rounded: bool):
    torch.set_num_threads(threads)
    with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
      once()

  return {
    f"PyTorch{', bfloat16' * rounded}, {threads} thread{'s' * (threads > 1)}": (
      count,
      lambda threads=threads, rounded=rounded: run(threads, rounded),
    )
    for rounded in (False, True)
    for threads in (1, 2)
  }
