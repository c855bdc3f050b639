"""sample: texts that are shown as they are drawn."""

import jax
import numpy as np

from seqrnn import experiments
from seqrnn.data.vocabulary import END
from seqrnn.modes.sample import write_texts
from seqrnn.sampling import sampler, texts
from tests.conftest import tiny


def test_several_temperatures_and_streams(tmp_path):
  config = tiny(
    tmp_path,
    {
      "sample.temperature": (0.0, 1.0),
      "sample.streams": 3,
      "sample.length": 70,
      "sample.prime": "ab",
    },
  )
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(1))
  shown = []
  writing = texts.begin(experiment, params, config)
  drawn = write_texts(writing, tmp_path, shown.append)
  assert len(drawn) == 6
  assert all(text.startswith("ab") for text in drawn)
  assert len(set(drawn[:3])) == 1  # Greedy: the streams are alike.
  assert len(set(drawn[3:])) == 3
  assert "temperature 0\n" in "".join(shown)
  assert all(text in "".join(shown) for text in drawn)
  assert texts.sample(experiment, params, config) == drawn


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
