"""A model as a file of tensors with the names of torch.nn."""

import numpy as np

from seqrnn.errors import UserError
from seqrnn.exporting.network import Network

FILE = "model.safetensors"


def encoded(network: Network, about: dict[str, str]) -> bytes:
  """The content of a file with the tensors of a network.

  Args:
    network: the parts.
    about: more entries of the file's metadata.

  Raises:
    UserError: safetensors is missing, or the layers have no equal in torch.nn.
  """
  try:
    from safetensors.numpy import save
  except ImportError:
    raise UserError(
      "config.export.format='safetensors': needs the package safetensors; pip"
      " install 'seqrnn[export]'"
    ) from None
  return save(state(network), {**metadata(network), **about})


def metadata(network: Network) -> dict[str, str]:
  """The arguments of the layers, which the tensors lack, as strings."""
  first = network.first
  arguments = {
    "format": "pt",
    "layer": first.kind,
    "hidden_size": str(first.hidden_size),
    "num_layers": str(len(next(iter(network.stacks.values())))),
    "bidirectional": str(network.two_ways).lower(),
    "tied": str(network.tied).lower(),
    "pooling": network.pooling,
  }
  if first.kind == "RNN":
    arguments["nonlinearity"] = first.activations[0].lower()
  return arguments


def state(network: Network) -> dict[str, np.ndarray]:
  """The tensors by the names that modules of torch.nn give them.

  A head of tied weights has no weight of its own.

  Raises:
    UserError: two directions are merged in a way that torch.nn lacks.
  """
  if network.two_ways and network.merge != "concat":
    raise UserError(
      f"config.export.format='safetensors' with model.merge={network.merge!r}:"
      " must be 'concat', as in torch.nn; onnx has sum and mean"
    )
  tensors = {}
  if network.embedding_VD is not None:
    tensors["embedding.weight"] = network.embedding_VD
  for stack, layers in network.stacks.items():
    for depth, ways in enumerate(layers):
      for way, suffix in zip(ways, ("", "_reverse"), strict=False):
        place = f"l{depth}{suffix}"
        tensors |= {
          f"{stack}.weight_ih_{place}": way.input_KD,
          f"{stack}.weight_hh_{place}": way.recurrent_KH,
          f"{stack}.bias_ih_{place}": way.input_bias_K,
          f"{stack}.bias_hh_{place}": way.recurrent_bias_K,
        }
  for name, (weight, bias) in network.heads.items():
    if not network.tied:
      tensors[f"{name}.weight"] = weight
    tensors[f"{name}.bias"] = bias
  return {
    name: np.ascontiguousarray(tensor, np.float32)
    for name, tensor in tensors.items()
  }
