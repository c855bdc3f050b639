"""sample: texts that are shown as they are drawn."""

import jax
import numpy as np

from seqrnn import experiments
from seqrnn.data.vocabulary import END
from seqrnn.modes.sample import write_texts
from seqrnn.sampling import sampler, texts
from tests.conftest import tiny


def test_one_stream_is_shown_as_it_is_made(tmp_path, monkeypatch):
  monkeypatch.setattr(sampler, "_CHUNK", 64)
  config = tiny(tmp_path, {"sample.length": 150, "data.boundaries": False})
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  head_bias = np.zeros(len(experiment.vocabularies["symbols"]), np.float32)
  head_bias[END] = -100  # It never ends by itself.
  params["head"]["bias"] = head_bias
  shown = []
  writing = texts.begin(experiment, params, config)
  drawn = write_texts(writing, tmp_path, shown.append)
  assert "".join(shown) == drawn[0] + "\n"
  # Without the line break after which it begins.
  assert len(drawn[0]) == 150 and len(shown) == 4
  assert not (tmp_path / "samples.jsonl").exists()
