r"""Classification: the language of a surname.

What: a bidirectional LSTM of 128 units reads the letters of a surname; its
final states give one of 30 languages. The names are from the package faker:
those in Latin letters that are listed for a single language. Equal names are in
the same split.
Source: faker's lists, for the task of PyTorch's tutorial on names. The names of
that tutorial are downloaded by --config.data.source=names18
Expected: test accuracy 75.3 %, macro F1 .57, after 34 s on one core (faker
40.63.0, jax 0.10.1, seed 0).
Command: pip install -e '.[names]' && python run.py --config=configs/names.py
Then: python run.py --workdir=runs/names --mode=predict \
  --config.predict.text=Yamamoto
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  config.task = "classification"
  data = config.data
  data.source = "names"
  data.window = 24
  data.keep = "first"
  data.validation_fraction = 0.1
  data.test_fraction = 0.1

  config.model.bidirectional = True
  config.model.layers = 1
  config.model.hidden_size = 128
  config.model.embedding_size = 32
  config.model.dropout = 0.3

  config.optimizer.learning_rate = 6e-3
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 32
  config.train.epochs = 5
  config.train.fit_to_data = "all"  # A small set has more, smaller steps.
  config.train.adapt_to_length = True
  config.train.ema = 0.995
  return config
