r"""Many short sessions of events, each read whole: what comes next in it.

What: two LSTM layers of 64 units, as DeepLog has them, predict every event of a
session from all before it, its end among them. Sessions of similar length
stand in a batch, so that little is padding, and equal ones stand there once,
with their number as weight. By default an event is an opcode of CPython and a
session is one function of the standard library.
Source: the network of Du et al. 2017 (DeepLog), which reads windows of 10
events; here the state is carried through the session.
Your own sessions, one a line, ids separated by spaces:
  --config.data.source=files --config.data.path=sessions.txt
Expected: test 2.59 bits an event, 48 % of them right, after a minute of CPU
time; configs/events.py, larger and trained for longer, reaches 1.84 (Python
3.11.7's library, jax 0.10.1, seed 0).
Command: python run.py --config=configs/sessions.py
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """The recipe."""
  config = base.get_config()
  data = config.data
  data.source = "opcodes"
  data.unit = "session"
  data.window = 300
  data.buckets = 6
  data.repeats = "weight"

  config.model.hidden_size = 64
  config.model.layers = 2

  config.optimizer.learning_rate = 4e-3
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 32
  config.train.epochs = 6
  return config
