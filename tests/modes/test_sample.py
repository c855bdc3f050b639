"""sample: texts that are shown, and written where the format asks for it."""

import jax
import numpy as np

from seqrnn import experiments
from seqrnn.data.vocabulary import END
from seqrnn.modes.sample import write_texts
from seqrnn.sampling import sampler, texts
from tests.conftest import tiny


def test_a_text_is_shown_alone(tmp_path, monkeypatch):
  monkeypatch.setattr(sampler, "_CHUNK", 64)
  config = tiny(tmp_path, {"sample.length": 150, "data.boundaries": False})
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  head_bias = np.zeros(len(experiment.vocabularies["symbols"]), np.float32)
  head_bias[END] = -100  # It never ends by itself.
  params["head"]["bias"] = head_bias
  shown = []
  writing = texts.begin(experiment, params, config)
  [drawn] = write_texts(writing, tmp_path, shown.append)
  assert shown == [drawn + "\n"]
  # Without the line break after which it begins.
  assert len(drawn) == 150
  assert not (tmp_path / "samples.jsonl").exists()
