r"""Raw logs: which sessions, and which of their lines, are odd.

What: Drain finds the templates of the lines that are trained on, and two LSTM
layers of 64 units, as DeepLog has them, predict each event of a session from
all before it, its end among them. A line that is of no template is the unknown
event. The last sessions are held out, as time goes on. Equal ones stand in a
batch once, with their number as weight. Training takes 240 steps, however long
the log is: few, for who trains long on a log learns its anomalies, too.
Source: Du et al. 2017 (DeepLog) for the network, He et al. 2017 (Drain) for the
templates; needs the extra `logs`.
Expected: docs/detection.md.
The log here is that of Debian's package manager, with a session a package.
Command: python run.py --config=configs/logs.py
Your own: data.path, what stands before the content of a line, and one way to
cut it into sessions. Of the Hadoop file system, where a session is a block:
  data.path = "hdfs.log.xz"
  data.log_header = "<Date> <Time> <Pid> <Level> <Component>: <Content>"
  data.log_session = r"(blk_-?\d+)"
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """The recipe."""
  config = base.get_config()
  data = config.data
  data.source = "files"
  data.path = "/var/log/dpkg.log"
  data.unit = "log"
  data.log_header = "<Date> <Time> <Content>"
  data.log_session = r" (\S+):(?:all|amd64|arm64) "
  data.split = "last_documents"
  data.window = 300
  data.buckets = 6
  data.repeats = "weight"

  config.model.hidden_size = 64
  config.model.layers = 2
  config.model.symbol_dropout = 0.01  # So that the unknown event means one.

  config.optimizer.learning_rate = 4e-3
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 32
  config.train.batches_per_epoch = 40
  config.train.epochs = 6
  return config
