r"""Event ids: an LSTM predicts the next event of a session.

What: an LSTM layer of 224 units predicts each event of a session, and its end,
from all earlier events. By default an event is an opcode of CPython and a
session is a function of the standard library; whole modules are held out.
Source: fluency03/sequence-rnn-py, which reads log events as ids. For its
many-to-one mapping:
  --config.data.mapping=many_to_one --config.data.window=10 --config.data.step=1
Your own sessions, one a line, ids separated by spaces:
  --config.data.source=files --config.data.path=sessions.txt
With --config.data.unit=id as well, a line is an id and a file is a session.
Expected: test 1.78 bits an event, accuracy 60 %, after a minute on one core
(Python 3.11.7's library, jax 0.10.1, seed 0).
Command: python run.py --config=configs/events.py
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  data = config.data
  data.source = "opcodes"
  data.unit = "session"
  data.window = 64

  config.model.hidden_size = 224
  config.model.layers = 1
  config.model.dropout = 0.2

  config.optimizer.learning_rate = 8e-3
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 16
  config.train.epochs = 7
  config.train.ema = 0.995
  return config
