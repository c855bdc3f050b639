r"""Gap model: a bidirectional LSTM predicts a missing character of a text.

What: a forward and a backward LSTM layer, each of 128 units, read a window of
128 characters. They meet at the softmax, so that a character is predicted from
all other characters and never from itself. Three of a hundred input characters
are replaced by the unknown symbol in training, so that the model can fill
adjacent gaps. The corpus is the Python standard library, with whole modules
held out.
Source: the bidirectional model in the diagram of fluency03/sequence-rnn-py,
whose program showed the model its targets.
Expected: test 0.86 bits a character, accuracy 84 %; 1.5 minutes on one core
(Python 3.11.7's library, jax 0.10.1, seed 0).
Command: python run.py --config=configs/brnn.py
Then: python run.py --workdir=runs/brnn --mode=predict \
  --config.predict.text='impo_t sys, _s'
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  config.task = "gap_model"
  config.data.window = 128
  config.model.layers = 1
  config.model.hidden_size = 128
  config.model.symbol_dropout = 0.03

  config.optimizer.name = "adam"
  config.optimizer.learning_rate = 7e-2
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"
  config.schedule.warmup_steps = 100

  config.train.batch_size = 16
  config.train.epochs = 1
  config.train.ema = 0.995
  config.train.eval_every = 700
  config.train.fit_to_data = "all"  # A short text has more, smaller steps.
  config.train.adapt_to_length = True
  return config
