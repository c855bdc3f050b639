r"""Many short sessions: an LSTM predicts each event from the whole session.

What: an LSTM layer of 128 units predicts each event of a session, and its end,
from all earlier events. A batch has sessions of similar length, so that there
is little padding. Equal sessions are read once, weighted by their number. Few
different sessions are one batch, which is repeated for 240 steps. By default an
event is an opcode of CPython and a session is a function of the standard
library.
Source: the task of Du et al. 2017 (DeepLog), whose network has two layers of 64
units and reads windows of 10 events; here the state is carried through the
session. With --config.model.layers=2 --config.model.hidden_size=64 and a rate
of .004, without dropout and mean of the parameters, the validation loss was
1.70 instead of 1.22 nats.
DeepLog's sessions of the Hadoop file system: --config.data.source=hdfs
Your own sessions, one a line, ids separated by spaces:
  --config.data.source=files --config.data.path=sessions.txt
Expected: test 1.85 bits an event, accuracy 59 %, after 25 s on one core (Python
3.11.7's library, jax 0.10.1, seed 0). configs/events.py, larger and trained for
longer, reaches 1.78.
Command: python run.py --config=configs/sessions.py
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  data = config.data
  data.source = "opcodes"
  data.unit = "session"
  data.window = 300
  data.buckets = 6
  data.repeats = "weight"

  config.model.hidden_size = 128
  config.model.layers = 1
  config.model.dropout = 0.1

  config.optimizer.learning_rate = 2e-2
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 32
  config.train.epochs = 8
  config.train.fit_to_data = "train.batch_size,train.batches_per_epoch"
  config.train.ema = 0.99
  return config
