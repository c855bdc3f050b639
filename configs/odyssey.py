r"""Odyssey: the search of "LSTM: A Search Space Odyssey", for one cell.

What: one LSTM layer models four-part music, as in configs/polyphony.py. It is
trained by SGD with Nesterov's momentum; a random search draws the learning
rate, hidden size, momentum and input noise. benchmarks/odyssey.py runs the
search for all nine cells of the paper and compares them. By default the music
is synthetic. For Bach's chorales:
  --config.data.source=jsb
Source: Greff et al. 2017, with their ranges and with gradients scaled by
1 - momentum. Their gradients are sums over a piece. Ours are means over the
frames of 4 pieces, about 240 frames, so the range of the learning rate is 240
times theirs, 1e-6..1e-2. They train on one piece at a time for up to 150
epochs, with 200 trials a cell.
Expected: see docs/results/odyssey.md; a trial takes 8 seconds on one core.
Command: python run.py --config=configs/odyssey.py --mode=search
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  config.task = "polyphony"
  config.data.source = "chords"
  config.data.window = 160  # No chorale is longer.

  config.model.cell = "odyssey"
  config.model.layers = 1
  config.model.forget_bias = 0.0  # Probably that of the paper.

  config.optimizer.name = "sgd"
  config.optimizer.learning_rate = 0.5
  config.optimizer.momentum = 0.9
  config.optimizer.nesterov = True
  config.optimizer.dampened = True

  config.train.batch_size = 4
  config.train.epochs = 10
  config.train.eval_every = 116  # Two epochs of the chorales.
  config.train.patience = 2

  config.search.method = "random"
  config.search.trials = 20
  config.search.pruning = "none"
  config.search.space = (
    "optimizer.learning_rate=log_uniform(2.4e-4, 2.4)",
    "optimizer.momentum=one_minus_log_uniform(0.01, 1)",
    "model.hidden_size=log_uniform(20, 200)",
    "model.input_noise=uniform(0, 1)",
  )
  return config
