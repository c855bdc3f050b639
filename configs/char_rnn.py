r"""char-rnn's recipe on tinyshakespeare, under char-rnn's own split.

What: two LSTM layers of 128 units read 50 parallel streams of the text, 50
characters a step, the carry handed on (truncated backpropagation through
time). Validation is the last 5 % of each stream.
Source: karpathy/char-rnn, train.lua, default settings. Two differences: its
loss is a sum over time where ours is a mean, so that its clipping of every
gradient entry at 5 is 5 / 50 here; and it carries the state from the end of an
epoch into the next, where ours starts anew.
Expected: validation 1.40 nats by epoch 13, 1.38 at best (epoch 20); published
by a user of char-rnn: 1.394 at epoch 26. 15 minutes on 2 cores for all 50
epochs (jax 0.10.1, seed 0). With a cosine schedule, dropout and a mean of the
parameters the same network gets 1.335: RESULTS.md.
Command: python run.py --config=configs/char_rnn.py
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """The recipe."""
  config = base.get_config()
  data = config.data
  data.source = "tinyshakespeare"
  data.split = "stream_tails"
  data.validation_fraction = 0.05
  data.test_fraction = 0.0
  data.boundaries = False  # The text is one stream that never ends.
  data.window = 50
  data.stateful = True

  config.model.hidden_size = 128
  config.model.layers = 2
  config.model.initial_scale = 0.08

  config.optimizer.name = "rmsprop"
  config.optimizer.learning_rate = 2e-3
  config.optimizer.decay = 0.95
  config.optimizer.clip_value = 5 / 50
  config.schedule.name = "exponential"
  config.schedule.factor = 0.97
  config.schedule.after = 10

  config.train.batch_size = 50
  config.train.epochs = 50
  return config
