r"""Language model: an LSTM layer predicts Python code, character by character.

What: an LSTM layer of 288 units reads 32 parallel streams of the Python
standard library, 64 characters a step, and passes the state from batch to batch
(truncated backpropagation through time). Whole modules are held out. The
learning rate is high and decays to zero within two epochs.
Source: the unidirectional model of fluency03/sequence-rnn-py, made smaller.
Expected: test 1.79 bits a character, accuracy 66 %; 2.5 minutes on one core
(Python 3.11.7's library, jax 0.10.1, seed 0).
Command: python run.py --config=configs/rnn.py
Then: python run.py --workdir=runs/rnn --mode=sample \
  --config.sample.temperature=0.5
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  config.data.stateful = True
  config.model.layers = 1
  config.model.hidden_size = 288

  config.optimizer.name = "adam"
  config.optimizer.learning_rate = 1.2e-2
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"
  config.schedule.warmup_steps = 100

  config.train.batch_size = 32
  config.train.epochs = 2
  config.train.ema = 0.995
  config.train.eval_every = 1000
  config.train.patience = 6
  config.train.fit_to_data = "all"  # A short text has more epochs, dropout.
  config.train.adapt_to_length = True

  rate = "optimizer.learning_rate=log_uniform(1e-4, 1e-1)"
  config.search.space = (rate,)
  return config
