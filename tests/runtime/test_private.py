"""Each private name of another library is there and means what we need.

A test that fails here names what a new version of a library has changed.
"""

import ast
import asyncio
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts
from flax import linen as nn

from seqrnn.runtime import devices, private, sharding
from seqrnn.sampling import patterns


def test_a_traced_function_knows_its_platform_and_the_axes_that_xla_splits():
  meshes = []

  def note(x):
    meshes.append((sharding.platform(), private.auto_axes()))
    return x

  sharding.jit(note, sharding.mesh()).eval_shape(jnp.ones(4))
  apart = sharding.each_device(lambda _, x: note(x), sharding.mesh())
  sharding.jit(apart, sharding.mesh()).eval_shape((), jnp.ones(4))
  assert meshes == [("cpu", ("data",)), ("cpu", ())]
  assert private.mesh_platform(sharding.mesh()) == "cpu"


def test_settings_are_those_of_a_block():
  assert private.jax_setting("jax_num_cpu_devices") == 4
  assert not private.jax_setting("jax_disable_jit")
  with jax.disable_jit():
    assert private.jax_setting("jax_disable_jit")


def test_the_layout_of_a_product_s_factor_is_kept():
  program = jax.jit(lambda x: private.row_by_row(x.T))
  text = program.lower(jnp.ones((3, 5))).compile().as_text()
  assert "f32[5,3]{1,0}" in text


def test_processes_share_their_arrays():
  x = np.arange(4)
  np.testing.assert_array_equal(private.gather_processes(x), x)
  np.testing.assert_array_equal(private.of_first_process(x), x)


def test_a_compilation_is_heard_of_and_has_its_options():
  seconds, x = [], jnp.ones(3)
  private.on_compilation(seconds.append)
  options = private.fast_compilation()
  jax.jit(lambda x: x + 41, **options).lower(x).compile()
  assert len(seconds) == 1 and seconds[0] > 0


def test_messages_of_xla_are_known():
  with pytest.raises(RuntimeError) as caught:
    jnp.zeros(2**50).block_until_ready()
  assert devices.out_of_memory(caught.value)
  assert private.says_process_lost("Gloo all-reduce failed: Connection reset")
  assert not private.says_process_lost("Invalid argument")
  assert not private.says_out_of_memory("Invalid argument")
  assert private.FATAL_LOG and private.GLOO_LOG


def test_a_report_to_a_closed_event_loop_is_known_by_its_message():
  loop = asyncio.new_event_loop()
  loop.close()
  with pytest.raises(RuntimeError) as caught:
    loop.call_soon(print)
  assert private.is_closed_loop(caught.value)
  assert not private.is_closed_loop(RuntimeError("another"))


def test_a_module_knows_the_keys_of_its_parameters():
  class Inner(nn.Module):
    path: str = "own"

    def __call__(self):
      return private.module_path(self)

  class Outer(nn.Module):
    @nn.compact
    def __call__(self):
      return Inner(name="inner")()

  assert Outer().apply({}) == ("inner",)


def test_a_lambda_is_read_by_another_process():
  pytest.importorskip("pyspark")
  assert pickle.loads(private.pickled(lambda x: x + 1))(2) == 3


def test_orbax_writes_where_and_as_it_did(tmp_path):
  x, seen = np.arange(6, dtype=np.float32).reshape(2, 3), []

  def note():
    [folder] = private.unfinished_checkpoints(tmp_path, 7)
    seen.append((folder / "params").is_dir())

  options = ocp.AsyncOptions(post_finalization_callback=note)
  with ocp.CheckpointManager(
    tmp_path, options=ocp.CheckpointManagerOptions(async_options=options)
  ) as manager:
    saved = ocp.args.StandardSave({"x": jnp.array(x)})
    manager.save(7, args=ocp.args.Composite(params=saved))
  assert seen == [True]
  store = private.array_store(tmp_path / "7" / "params", "x")
  content = ts.KvStore.open(store).result()[".zarray"]
  metadata = ast.literal_eval(content.decode().replace("null", "None"))
  assert metadata.pop("chunks") == [2, 3]
  assert metadata == private.array_metadata(x.shape, x.dtype.str)
  array = ts.open({"driver": "zarr", "kvstore": store}, read=True).result()
  np.testing.assert_array_equal(array.read().result(), x)


def test_a_trial_is_taken_over():
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  study = optuna.create_study()
  study.ask().suggest_float("x", 0, 1)
  [left] = study.get_trials()
  trial = private.resumed_trial(study, left)
  study.tell(trial, 3.0)
  assert study.best_trial.params == left.params


def test_the_operations_of_an_expression_have_their_names():
  cases = {
    "ab|c*": set(),
    "^a$": {"AT"},
    "(?=a)": {"ASSERT"},
    "(?<!a)b": {"ASSERT_NOT"},
    r"(a)\1": {"GROUPREF"},
    "(a)(?(1)b|c)": {"GROUPREF_EXISTS"},
    "(?>a)": {"ATOMIC_GROUP"},
    "a*+": {"POSSESSIVE_REPEAT"},
  }
  for pattern, expected in cases.items():
    operations = private.regex_operations(pattern)
    assert operations & patterns.REFUSED == expected, pattern
  assert private.regex_operations("(?!)") & patterns.REFUSED
