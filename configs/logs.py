r"""Raw logs: finds anomalous sessions and lines of a log.

What: templates are mined from the training lines; an event is a template.
Two LSTM layers of 64 units, as in DeepLog, predict each event of a session, and
its end, from all earlier events. A line without a template is the unknown
event. The last sessions in time are held out. Equal sessions are read once,
weighted by their number. Training takes only 480 steps for a log of any length,
because a model that trains for long learns the anomalies of its log, too.
Source: Du et al. 2017 (DeepLog).
Expected: docs/results/detection.md.
The log is that of Debian's package manager, where a session is a package.
Command: python run.py --config=configs/logs.py
Your own log: set data.path, the format of its lines (data.log_format=auto finds
it out) or their header, and one way to cut it into sessions. For the Hadoop
file system, where a session is a block:
  data.path = "hdfs.log.xz"
  data.log_header = "<Date> <Time> <Pid> <Level> <Component>: <Content>"
  data.log_session = r"(blk_-?\d+)"
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
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
  config.model.symbol_dropout = 0.01  # Trains the unknown event, too.

  config.optimizer.learning_rate = 4e-3
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 32
  config.train.batches_per_epoch = 40
  config.train.epochs = 12
  return config
