"""Trains, evaluates and uses recurrent networks on sequences of symbols.

  python run.py --config=configs/brnn.py
  python run.py --config=configs/rnn.py --config.model.hidden_size=256
  python run.py --workdir=runs/rnn --mode=sample --config.sample.temperature=0.5

`python run.py --help` explains the flags. The same program is installed as the
command `seqrnn`. seqrnn/training/train.py lists the modules that a training
passes, from here to the gates of a cell; seqrnn/modes/detect.py those of a
detection.
"""

from seqrnn.__main__ import start

if __name__ == "__main__":
  start()
