"""Training steps, compiled for a TPU v5e that is not here: `pytest -m ahead`.

The compiler is libtpu, of the extra `tpu`. A bound on cycles is the compiler's
own estimate with room for other versions of it, and no measurement.
"""

from functools import cache
from typing import NamedTuple

import jax
import pytest

from benchmarks import hlo, programs
from seqrnn import experiments

pytestmark = pytest.mark.ahead


class Bound(NamedTuple):
  """A config and its bounds.

  Attributes:
    config: its name.
    field: `field=value`, which replaces a value of the file; or "".
    megabytes: of the peak on each chip.
    cycles: of a time step of all loops, on one chip.
  """

  config: str
  field: str
  megabytes: float
  cycles: int


BOUNDS = [
  Bound("rnn", "", 55, 32_000),
  Bound("brnn", "", 51, 52_000),
  Bound("words", "", 120, 28_000),  # A wide vocabulary.
  Bound("rnn", "model.cell=layer_norm_lstm", 110, 90_000),
]


@pytest.fixture(scope="module")
def step():
  """A function bound, target -> the compiled training step."""
  pytest.importorskip("libtpu")

  @cache
  def compiled(bound, target):
    fields = dict([bound.field.split("=")] if bound.field else [])
    config = programs.read_config(bound.config, fields)
    mesh = programs.compile_mesh(target)
    made = programs.training(config, experiments.build(config, None), mesh)
    return made.function.lower(*made.args).compile()

  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("TPU_SKIP_MDS_QUERY", "1")
    patch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    patch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # For pytest-xdist.
    jax.config.update("jax_enable_compilation_cache", False)
    yield compiled
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.mark.parametrize("target", ["v5e:1x1", "v5e:2x2"])
@pytest.mark.parametrize("bound", BOUNDS, ids=lambda b: f"{b.config} {b.field}")
def test_the_step_of_a_config(step, bound, target):
  compiled = step(bound, target)
  memory = compiled.memory_analysis()
  assert memory.peak_memory_in_bytes < 1e6 * bound.megabytes
  # The new state takes the place of the old.
  assert memory.alias_size_in_bytes > 0.99 * memory.output_size_in_bytes
  program = hlo.Program(compiled.as_text())
  assert set(program.precisions()) == {"highest"}
  inside, outside = program.collectives()
  assert (inside, outside > 0) == (0, target != "v5e:1x1")
  loops = program.loops()
  assert {loop.backward for loop in loops} == {False, True}
  if target == "v5e:1x1":
    assert 0 < sum(loop.cycles for loop in loops) < bound.cycles
