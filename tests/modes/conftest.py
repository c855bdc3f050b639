"""A run of sessions whose folds are trained once, for detect and for review."""

import contextlib
import io
import random
import shutil
from typing import Any, NamedTuple

import pytest

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.vocabulary import encoded
from seqrnn.logs.detect.findings import Findings
from seqrnn.modes import detect
from seqrnn.training import train
from tests.conftest import tiny

FIELDS = {
  "data.unit": "session",
  "data.split": "documents",
  "data.validation_fraction": 0.2,
  "data.test_fraction": 0.0,
  "data.window": 8,
  "data.repeats": "weight",
  "optimizer.learning_rate": 0.05,
  "train.batch_size": 16,
  "train.epochs": 4,
  "detect.folds": 2,
  "detect.rate": 0.02,
  "detect.top_k": 2,
}
RARE = "d c b a"  # Some training sessions, in both folds.
BAD = ("a b a e", "d d d d", "a c d x e", "e", "a b d")


def walk(rng):
  """A session of a small machine, whose events follow each other by rules."""
  after = {"a": "bc", "b": "cd", "c": "d", "d": "ae"}
  events = ["a"]
  while events[-1] != "e" and len(events) < 15:
    events.append(rng.choice(after[events[-1]]))
  return " ".join(events)


_BUILT: dict[tuple[str, str], Any] = {}


def build(config: Config, vocabularies: dict[str, Any] | None = None) -> Any:
  """As `experiments.build`; one experiment of equal configs, compiled once."""
  fields = config_lib.flat(config).items()
  key = repr([(n, v) for n, v in fields if not n.startswith("detect.")])
  names = "" if vocabularies is None else encoded(vocabularies)
  if (key, names) not in _BUILT:
    _BUILT[key, names] = experiments.build(config, vocabularies)
  return _BUILT[key, names]


class Detected(NamedTuple):
  """A detection of good.txt and bad.txt, in the folder of both.

  Its workdir is `run`; the first results are in `first`.
  """

  folder: Any
  config: Config
  findings: Findings

  def detect(self, **changes: Any) -> Findings:
    """The findings of the same run with other settings of `detect`."""
    config = self.config.copy_and_resolve_references()
    config.detect.update(changes)
    return detect.run(build, config, self.folder / "run")


@pytest.fixture(scope="session")
def detected(tmp_path_factory):
  folder = tmp_path_factory.mktemp("detected")
  rng = random.Random(0)
  normal = [walk(rng) for _ in range(300)]
  for number in (3, 40, 41, 100, 200):
    normal[number] = RARE
  good = [walk(rng) for _ in range(200)]
  for name, texts in (("normal", normal), ("good", good), ("bad", BAD * 2)):
    (folder / f"{name}.txt").write_text("\n".join(texts))
  config = tiny(folder, {**FIELDS, "data.path": str(folder / "normal.txt")})
  train.fit(build, config, folder / "run")
  config.detect.path = str(folder / "good.txt")
  config.detect.anomalous_path = str(folder / "bad.txt")
  with contextlib.redirect_stdout(io.StringIO()) as out:
    findings = detect.run(build, config, folder / "run")
  lines = out.getvalue().splitlines()
  assert lines[1].startswith("detect.folds=2: trains 2 models")
  folds = [line[:11] for line in lines if line.startswith("fold ")]
  assert folds == ["fold 1 of 2", "fold 2 of 2"]
  shutil.copytree(folder / "run", folder / "first")
  return Detected(folder, config, findings)


@pytest.fixture
def again(detected):
  """The detection, whose folder `run` a test may change."""
  return detected


def texts_of(config, k=None):
  """Name -> text of the training sessions, or of those held out from a fold."""
  pieces = splits.reader(config)("train")
  if k is not None:
    pieces = splits.some(pieces, splits.blocks(pieces, 2, 4) == k - 1)
  return {d.name: " ".join(d.symbols) for d in pieces.documents()}
