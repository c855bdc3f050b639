"""train: trains or resumes a run, on all devices.

Of a log it prints which events change inside of the training period.
"""

from pathlib import Path

from seqrnn.config.read import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.logs.sessions import event_vocabulary, of_pieces
from seqrnn.experiment import Build
from seqrnn.logs import changes
from seqrnn.runtime import sharding
from seqrnn.training.train import fit


def run(build: Build, config: Config, workdir: Path):
  """Trains a run; see `fit`."""
  fit(build, config, workdir)
  if config.data.unit == "log" and sharding.is_first():
    names = vocabulary.load(workdir / "vocabulary.json")["symbols"]
    names = event_vocabulary(names, config.detect.redact)
    sessions = of_pieces(splits.reader(config)("train"), names)
    found = changes.find_changes(sessions, names, config.detect.redact)
    for line in changes.change_lines(found, len(sessions.names)):
      print(line)
