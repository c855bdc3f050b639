"""The LSTM on one page, beside the network that a run trains."""

import functools
import os
import re
import runpy
import sys
from collections import deque
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn import cli
from seqrnn.data.vocabulary import BEGIN, RESERVED
from seqrnn.training import step, train
from tests.conftest import untrained, write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorials" / "one_page.py"


def test_one_page_has_the_loss_gradients_and_sample_of_a_run(tmp_path):
  run = untrained(tmp_path, {"model.hidden_size": 12})
  page = runpy.run_path(str(PAGE))
  random = np.random.default_rng(5)
  params = jax.tree.map(lambda x: 0.5 * random.normal(size=x.shape), run.params)
  params["head"]["bias"][: len(RESERVED)] = -50  # The page masks no symbol.
  names = run.experiment.vocabularies["symbols"]
  T = 40
  ids = [BEGIN, *random.integers(len(RESERVED), len(names), T)]
  with jax.enable_x64(True):
    exact, ids_T = jax.tree.map(jnp.array, params), jnp.array(ids)
    batch = {
      "inputs": ids_T[None, :-1],
      "targets": ids_T[None, 1:],
      "weights": jnp.ones((1, T)),
      "reset": jnp.ones(1, bool),
    }
    loss = lambda params: run.experiment.loss(
      params, run.experiment.carry(1), batch, None
    )[0]
    both = jax.jit(
      lambda params: (
        jax.value_and_grad(loss)(params),
        (page["loss"](params, ids_T), page["gradient"](params, ids_T)),
      )
    )
    (expected, gradient), (ours, slopes) = both(exact)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    same = functools.partial(np.testing.assert_allclose, atol=1e-10)
    jax.tree.map(same, slopes, gradient)
  rounded = jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)
  prime = names.text(ids[1:])
  drawn = page["sample"](rounded, jnp.array(ids), 30).tolist()
  [text] = run._replace(params=rounded).sample(
    prime, temperature=0.0, length=30
  )
  assert text == prime + names.text(drawn)


@functools.cache
def file_of(name: str) -> str | None:
  """A file of the project, from its root; None: of config/, or of others."""
  path = Path(os.path.realpath(name))
  if name[0] == "<" or not path.is_relative_to(ROOT):
    return None
  path = path.relative_to(ROOT)
  if path.parts[0] not in ("seqrnn", "experiments") or "config" in path.parts:
    return None
  return path.as_posix().removeprefix("seqrnn/")


class Traced(BaseException):
  """The step has been traced: no function that counts is called any more."""


def files_of_a_step(folder: Path) -> set[str]:
  """The files from run.py to the gates of a cell.

  A file counts if one of its functions has called `make_step` or the step of
  configs/rnn.py, or runs while this step is traced with model.scan=plain. Flags
  and fields, which config/ reads, do not.
  """
  files, tracing = {"run.py"}, 0

  def note(frame, event, _):
    nonlocal tracing
    if event not in ("call", "return"):
      return
    name = file_of(frame.f_code.co_filename)
    # Caches of JAX compare what other tests have left there, at any time.
    if name is None or "__eq__" in frame.f_code.co_qualname:
      return
    function = frame.f_code.co_name
    if name == "training/step.py" and function in ("make_step", "step"):
      if function == "step":
        tracing += 1 if event == "call" else -1
        if not tracing:
          raise Traced
      above = frame
      while above := above.f_back:
        files.add(file_of(above.f_code.co_filename))
    if tracing:
      files.add(name)

  fields = {
    "data.source": "files",
    "data.path": write_text(folder),
    "model.scan": "plain",
    "model.hidden_size": 6,
    "train.batch_size": 2,
    "train.max_steps": 1,
    "train.fit_to_data": "none",
  }
  line = [f"--config.{name}={value}" for name, value in fields.items()]
  config = f"--config={ROOT}/configs/rnn.py"
  sys.setprofile(note)
  try:
    with pytest.raises(Traced):
      cli.main(["run.py", config, f"--workdir={folder / 'run'}", *line])
  finally:
    sys.setprofile(None)
  return files - {None}


def test_the_files_that_a_step_passes_are_listed(tmp_path, monkeypatch):
  monkeypatch.setattr(step, "_kept", deque())  # No step was traced before.
  listed = lambda text: set(re.findall(r"[a-z_]+(?:/[a-z_]+)*\.py", text))
  files = files_of_a_step(tmp_path)
  assert listed(train.__doc__.split("After a step")[0]) == files
  guide = (ROOT / "docs" / "guides" / "lstm.md").read_text("utf-8")
  [steps] = re.findall(r"2\. \*\*Follow a step.*?(?=\n3\. )", guide, re.DOTALL)
  links = re.findall(r"\]\(\.\./\.\./([^)]*)\)", steps)
  assert {link.removeprefix("seqrnn/") for link in links} == files
