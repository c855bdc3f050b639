"""export: writes a trained model for PyTorch or ONNX, and its model card."""

from collections.abc import Callable
from pathlib import Path

from seqrnn.config.read import Config
from seqrnn.data import vocabulary
from seqrnn.experiment import Experiment
from seqrnn.exporting import card, network, onnx_graph, tensors
from seqrnn.modes import load_model
from seqrnn.runtime import files

_CARD = "MODEL_CARD.md"
# Format -> its module, and whether it has a cell.
FORMATS = {
  "safetensors": (tensors, network.in_torch),
  "onnx": (onnx_graph, network.in_onnx),
}


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Path:
  """Writes the files of an export into WORKDIR/export.

  A file of another format stays if it is of the same checkpoint.

  Returns:
    the path of the model.

  Raises:
    UserError: the format has no place for a part of the model, or its package
      is missing.
  """
  experiment, params, config.checkpoint.step = load_model(
    build, config, workdir, "export"
  )
  config.train.cpu_devices = config.train.cpu_threads = None  # Of this machine.
  module, has = FORMATS[config.export.format]
  parts = network.parts(experiment, config, params, has)
  folder = workdir / "export"
  settings = card.encoded_config(config)
  record = folder / "config.json"
  # Asked under the lock, after the files of a killed process are moved.
  same = lambda: record.exists() and record.read_bytes() == settings
  models = [other.FILE for other, _ in FORMATS.values()]
  older = lambda name: name in models and not same()
  about = {"task": config.task, "step": str(config.checkpoint.step)}
  contents = {
    module.FILE: module.encoded(parts, about),
    "config.json": settings,
    "vocabulary.json": vocabulary.encoded(experiment.vocabularies),
    _CARD: card.card(experiment, config, workdir).encode(),
  }
  folder.mkdir(parents=True, exist_ok=True)
  with files.locked_results(folder, "export", older) as new:
    for name, content in contents.items():
      with files.write_errors(folder / name):
        (new / name).write_bytes(content)
  for name in (module.FILE, _CARD):
    print(folder / name)
  return folder / module.FILE
