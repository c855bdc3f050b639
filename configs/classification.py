r"""Classification: the package of the standard library that a module is from.

What: a bidirectional LSTM of 64 units reads a window of 100 characters; the
label is predicted from the maximum of its outputs over the window. The
probabilities of a module are the mean over its windows. The labels are the
packages of the Python standard library with 12 modules or more; whole modules
are held out.
Source: this project. The recipe needs no download.
Expected: test accuracy 93.8 % of 48 modules, macro F1 .89, after a minute on a
core (Python 3.11.7, jax 0.10.1, seed 0).
Command: python run.py --config=configs/classification.py
Then: python run.py --workdir=runs/classification --mode=evaluate, which also
  draws confusion.png
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  config.task = "classification"
  data = config.data
  data.source = "packages"
  data.window = 100
  data.boundaries = False  # The start of a module would make the task easy.
  data.random_offset = True
  data.validation_fraction = 0.1
  data.test_fraction = 0.1

  config.model.bidirectional = True
  config.model.layers = 1
  config.model.hidden_size = 64
  config.model.pooling = "max"
  config.model.dropout = 0.2

  config.optimizer.learning_rate = 1e-2
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 32
  config.train.epochs = 3
  config.train.fit_to_data = "all"  # A small set has more, smaller steps.
  config.train.adapt_to_length = True
  config.train.ema = 0.995
  config.train.eval_every = 600
  return config
