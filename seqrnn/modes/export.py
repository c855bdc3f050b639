"""export: writes a trained model for PyTorch or ONNX, and its model card."""

import json
from pathlib import Path

import jax
import jinja2

from seqrnn import catalogue
from seqrnn.config import derived
from seqrnn.config import read as config_lib
from seqrnn.config.field import nested
from seqrnn.config.read import TRAINING, Config
from seqrnn.data import vocabulary
from seqrnn.experiment import Build, Params
from seqrnn.exporting import onnx_graph, tensors
from seqrnn.modes import load_model
from seqrnn.reporting import gathering
from seqrnn.runtime import files
from seqrnn.training import transfer

_CARD = "MODEL_CARD.md"
_FORMATS = {"safetensors": tensors, "onnx": onnx_graph}


def run(build: Build, config: Config, workdir: Path) -> Path:
  """Writes the files of an export into WORKDIR/export.

  A file of another format stays if it is of the same checkpoint.

  Returns:
    the path of the model.

  Raises:
    UserError: a part of the model has no place in a file, or the format's
      package is missing.
  """
  experiment, params, step = load_model(build, config, workdir, "export")
  recorded = config_lib.read_fields(workdir / "config.json")
  config = derived.portable(config, recorded, step)
  module = _FORMATS[config.export.format]
  folder = workdir / "export"
  fields = config_lib.flat(config).items()
  trained = (*TRAINING, "checkpoint.step")
  kept = {name: value for name, value in fields if name.startswith(trained)}
  settings = (json.dumps(nested(kept), indent=2) + "\n").encode()
  record = folder / "config.json"
  # `locked_results` calls it after it has moved the files of a killed process.
  same = lambda: record.exists() and record.read_bytes() == settings
  models = [other.FILE for other in _FORMATS.values()]
  older = lambda name: name in models and not same()
  about = {"task": config.task, "step": str(config.checkpoint.step)}
  contents = {
    module.FILE: module.encoded(experiment, config, params, about),
    "config.json": settings,
    "vocabulary.json": vocabulary.encoded(experiment.vocabularies),
    _CARD: _card(params, config, workdir).encode(),
  }
  folder.mkdir(parents=True, exist_ok=True)
  with files.locked_results(folder, "export", older) as new:
    for name, content in contents.items():
      files.write(new / name, content)
  for name in (module.FILE, _CARD):
    print(folder / name)
  return folder / module.FILE


def _card(params: Params, config: Config, workdir: Path) -> str:
  """The text of the model card, in Markdown."""
  best = gathering.best_evaluation(workdir)
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("seqrnn", "exporting"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
  )
  return environment.get_template("card.md.jinja").render(
    name=workdir.absolute().name,
    config=config,
    count=sum(leaf.size for leaf in jax.tree.leaves(params)),
    public=catalogue.sets().get(config.data.source),
    start=transfer.read_record(workdir),
    figures=best.figures if best.step == config.checkpoint.step else {},
    settings=config_lib.differences(config_lib.defaults(), config, TRAINING),
  )
