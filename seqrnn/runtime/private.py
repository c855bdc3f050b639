"""Private and experimental names of other libraries, each in one function.

A function says which library the name is of, in which versions it was seen,
and what is lost where it is missing. tests/runtime/test_private.py calls each.
Libraries are imported where they are used.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import jax
  import numpy as np
  import optuna
  from flax import linen as nn


def jax_setting(name: str) -> Any:
  """The value of a setting of JAX, also of one that a block has changed.

  jax 0.8 to 0.12, attributes of `jax.config` that type checkers do not know.
  Without it, devices that the user asks for are not known.
  """
  import jax

  return getattr(jax.config, name)


def mesh_platform(mesh: "jax.sharding.Mesh") -> str | None:
  """The platform of the devices of a mesh, which need not exist.

  jax 0.8 to 0.12, `AbstractMesh.abstract_device`. Without it, the platform of
  the default backend is taken, and steps cannot be compiled for another one.
  """
  return getattr(mesh.abstract_mesh.abstract_device, "platform", None)


def auto_axes() -> tuple[str, ...]:
  """The axes of the mesh over which XLA splits what a function computes.

  jax 0.8 to 0.12, `AbstractMesh.auto_axes`. Without it, a product would gather
  the rows of all devices in functions that each device calls by itself.
  """
  import jax

  return jax.sharding.get_abstract_mesh().auto_axes


def row_by_row(x: "jax.Array") -> "jax.Array":
  """The array, laid out row by row in memory.

  jax 0.8 to 0.12, `jax.experimental.layout`. Without it, products of bfloat16
  take several times as long on a CPU.
  """
  from jax.experimental.layout import Layout, with_layout_constraint

  return with_layout_constraint(x, Layout(major_to_minor=(0, 1)))


def gather_processes(x: "np.ndarray") -> "np.ndarray":
  """The rows of all processes, in each of them.

  jax 0.8 to 0.12, `jax.experimental.multihost_utils`. Without it, a run of
  several processes is not evaluated.
  """
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(x, tiled=True)


def of_first_process(x: "np.ndarray") -> "np.ndarray":
  """The value that the first process has, in each of them.

  As `gather_processes`. Without it, several processes do not train together.
  """
  from jax.experimental import multihost_utils

  return multihost_utils.broadcast_one_to_all(x)


def on_compilation(call: Callable[[float], int]):
  """Calls a function with the seconds of each compilation.

  jax 0.8 to 0.12, the event's name. Without it, memory that the compiler used
  is not returned.
  """
  import jax

  def listen(event: str, duration_secs: float, **_):
    if event.endswith("/backend_compile_duration"):
      call(duration_secs)

  jax.monitoring.register_event_duration_secs_listener(listen)


def fast_compilation() -> dict[str, dict[str, int]]:
  """Options of jax.jit with which LLVM optimizes less than it could.

  jaxlib 0.8 to 0.12, `xla_backend_optimization_level`, a debug option of XLA.
  Without it, compilation on a CPU takes a third longer.
  """
  return {"compiler_options": {"xla_backend_optimization_level": 1}}


def says_out_of_memory(message: str) -> bool:
  """Whether a message is of XLA's compilers or allocators, on any platform.

  jaxlib 0.8 to 0.12. Without it, too little memory ends in a traceback.
  """
  words = "(?i)out.of.memory|resource_exhausted|alloc_failed"
  return bool(re.search(words, message))


def says_process_lost(message: str) -> bool:
  """Whether a message of JAX means that another process was lost.

  jaxlib 0.8 to 0.12. Without it, that ends in a traceback.
  """
  words = (
    "(?i)gloo|nccl|coordination|barrier|heartbeat|connection reset"
    "|socket closed|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED"
  )
  return bool(re.search(words, message))


# What JAX's runtime logs when it ends a process because another one was lost.
# jaxlib 0.8 to 0.12; without it, dozens of lines are shown in place of one.
FATAL_LOG = b"distributed service detected fatal errors"


# The begin of the lines that Gloo logs, which connects processes on CPUs.
# jaxlib 0.8 to 0.12; without it, they are shown when a process fails.
GLOO_LOG = b"[Gloo]"


def is_closed_loop(error: BaseException | None) -> bool:
  """Whether something was reported to an event loop that was closed before.

  CPython 3.11 to 3.13, the message of asyncio. Without it, a harmless error of
  tensorstore is shown after a failed save.
  """
  return str(error) == "Event loop is closed"


def pickled(value: Any) -> bytes:
  """A value as bytes for `pickle.loads` of another process, with its lambdas.

  pyspark 3.5 to 4, `pyspark.cloudpickle`. Without it, Spark's workers get no
  detector.
  """
  from pyspark import cloudpickle  # pyright: ignore[reportMissingImports]

  return cloudpickle.dumps(value)


def module_path(module: "nn.Module") -> tuple[str, ...]:
  """The keys of a module's parameters, also of one with a field named `path`.

  flax 0.10 to 0.12, `Scope.path`. Without it, --mode=check has no gradients of
  layers.
  """
  assert module.scope is not None, "the module is bound"
  return module.scope.path


def unfinished_checkpoints(directory: Path, step: int) -> list[Path]:
  """The folder in which Orbax writes a checkpoint before it is renamed, if any.

  orbax-checkpoint 0.12. Without it, a checkpoint has no checksums.
  """
  return [*directory.glob(f"{step}.orbax-checkpoint-tmp*")]


def array_store(folder: Path, name: str) -> dict[str, str | dict[str, str]]:
  """The tensorstore of an array in a folder that Orbax has written.

  orbax-checkpoint 0.12. Without it, no checkpoint is read.
  """
  base = {"driver": "file", "path": f"{folder}/"}
  return {"driver": "ocdbt", "base": base, "path": f"{name}/"}


def array_metadata(shape: Sequence[int], dtype: str) -> dict[str, Any]:
  """The content of .zarray, except chunks, of an array that Orbax has written.

  As `array_store`.
  """
  return {
    "shape": [*shape],
    "dtype": dtype,
    "compressor": {"id": "zstd", "level": 1},
    "dimension_separator": ".",
    "fill_value": None,
    "filters": None,
    "order": "C",
    "zarr_format": 2,
  }


def resumed_trial(
  study: "optuna.Study", left: "optuna.trial.FrozenTrial"
) -> "optuna.Trial":
  """A trial that is running, as an object that can be told of its result.

  optuna 4.5 to 5, `FrozenTrial._trial_id`. Without it, the trial of a process
  that died fails and is not resumed.
  """
  import optuna

  return optuna.Trial(study, left._trial_id)


def regex_operations(pattern: str) -> set[str]:
  """The operations of a regular expression, by their names in `re._constants`.

  CPython 3.11 to 3.13, `re._parser`. Without it, expressions with anchors or
  look-arounds are not refused and mean something else.

  Raises:
    re.error, FutureWarning, OverflowError, RecursionError: as re.compile.
  """
  from re import _parser  # pyright: ignore[reportAttributeAccessIssue]

  # A character is a number in the text of a parsed expression.
  return {*re.findall("[A-Z_]+", repr(_parser.parse(pattern)))}
