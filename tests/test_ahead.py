"""Training steps, compiled for a TPU v5e that is not here: `pytest -m ahead`.

The compiler is libtpu, of the extra `tpu`. A bound on cycles is the compiler's
own estimate with room for other versions of it, and no measurement.
"""

from functools import cache

import jax
import pytest

from benchmarks import hlo, programs
from seqrnn import experiments

pytestmark = pytest.mark.ahead


# Of a config, and another value of a field: megabytes of the peak on each chip,
# and cycles of a time step of all loops, on one chip.
BOUNDS = [
  ("rnn", "", 55, 32_000),
  ("brnn", "", 51, 52_000),
  ("words", "", 120, 28_000),  # A wide vocabulary.
  ("rnn", "model.cell=layer_norm_lstm", 110, 90_000),
]


@pytest.fixture(scope="module")
def step():
  """A function config, field, target -> the compiled training step."""
  pytest.importorskip("libtpu")

  @cache
  def compiled(name, field, target):
    fields = dict([field.split("=")] if field else [])
    config = programs.read_config(name, fields)
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


# Four chips add collectives, the same for each cell.
@pytest.mark.parametrize(
  ("name", "field", "megabytes", "cycles", "target"),
  [
    *((*bounds, "v5e:1x1") for bounds in BOUNDS),
    *((*bounds, "v5e:2x2") for bounds in BOUNDS[1:3]),
  ],
)
def test_the_step_of_a_config(step, name, field, megabytes, cycles, target):
  compiled = step(name, field, target)
  memory = compiled.memory_analysis()
  assert memory.peak_memory_in_bytes < 1e6 * megabytes
  # The new state takes the place of the old.
  assert memory.alias_size_in_bytes > 0.99 * memory.output_size_in_bytes
  program = hlo.Program(compiled.as_text())
  assert set(program.precisions()) == {"highest"}
  inside, outside = program.collectives()
  assert (inside, outside > 0) == (0, target != "v5e:1x1")
  loops = program.loops()
  assert {loop.backward for loop in loops} == {False, True}
  if target == "v5e:1x1":
    assert 0 < sum(loop.cycles for loop in loops) < cycles
