r"""Polyphony: an LSTM models four-part music, in frames of 88 notes.

What: one LSTM layer of 200 units predicts, independently for each piano key,
whether it sounds in the next frame, from all earlier frames of the piece. By
default the music is synthetic and needs no file: 300 pieces of chords
(seqrnn/data/read/music.py), split by number.
Source: the task of Boulanger-Lewandowski et al. 2012. Bach's chorales and folk
tunes, in the files of Bai et al. 2018, are downloaded by
  --config.data.source=jsb or --config.data.source=nottingham
Expected: test 4.65 nats a frame on the synthetic chords (seed 0), after 23 s on
one core; a model of each key's last state alone has 7.80. On the chorales test
8.34, standard deviation .17 over three seeds; the LSTM of Bai et al. has 8.45
(jax 0.10.1). With model.nade=100, 400 units, averaged parameters, weight_drop
and more epochs the chorales reach 4.96 (RESULTS.md). Accuracy is TP / (TP + FP
+ FN) of notes with a probability above one half.
Command: python run.py --config=configs/polyphony.py
Then: python run.py --workdir=runs/polyphony --mode=sample \
  --config.sample.prime=0:16 --config.sample.length=64
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  config.task = "polyphony"
  config.data.source = "chords"
  config.data.window = 64

  config.model.layers = 1
  config.model.hidden_size = 200
  config.model.dropout = 0.5
  config.model.recurrent_dropout = 0.3

  config.optimizer.learning_rate = 1.6e-2
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 16
  config.train.epochs = 70
  config.train.eval_every = 100
  return config
