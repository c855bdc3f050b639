"""A model as a file of tensors with the names of torch.nn."""

from collections.abc import Callable

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
  """What the tensors do not say: arguments of the layers, as strings."""
  first = network.first
  arguments = {
    "format": "pt",
    "layer": first.kind,
    "hidden_size": str(first.hidden_size),
    "num_layers": str(len(next(iter(network.stacks.values())))),
    "bidirectional": str(network.two_ways).lower(),
    "tied": str(network.tied and not _merged(network)).lower(),
    "pooling": network.pooling,
  }
  if first.kind == "RNN":
    arguments["nonlinearity"] = first.activations[0].lower()
  return arguments


def _merged(network: Network) -> bool:
  """Whether directions are merged by a sum, which torch.nn does not do."""
  return network.two_ways and network.merge != "concat"


def state(network: Network) -> dict[str, np.ndarray]:
  """The tensors by the names that modules of torch.nn give them.

  A head of tied weights has no weight of its own. torch.nn concatenates the two
  directions; the next product of their sum, W (a + b), is that of their
  concatenation, [W W] (a, b).

  Raises:
    UserError: the maximum over time of a sum is no product.
  """
  widen: Callable[[np.ndarray], np.ndarray] = lambda weight: weight
  if _merged(network):
    if network.pooling == "max":
      raise UserError(
        f"config.export.format='safetensors' with model.merge={network.merge!r}"
        " and model.pooling='max': model.merge must be 'concat', as in torch.nn"
      )
    share = np.float32(0.5 if network.merge == "mean" else 1)
    widen = lambda weight: np.concatenate([share * weight] * 2, axis=1)
  tensors = {}
  if network.embedding_VD is not None:
    tensors["embedding.weight"] = network.embedding_VD
  for stack, layers in network.stacks.items():
    for depth, ways in enumerate(layers):
      both = len(ways) > 1
      for way, suffix in zip(ways, ("", "_reverse"), strict=False):
        place = f"l{depth}{suffix}"
        both_read = widen if both and depth else lambda weight: weight
        tensors |= {
          f"{stack}.weight_ih_{place}": both_read(way.input_KD),
          f"{stack}.weight_hh_{place}": way.recurrent_KH,
          f"{stack}.bias_ih_{place}": way.input_bias_K,
          f"{stack}.bias_hh_{place}": way.recurrent_bias_K,
        }
  for name, (weight, bias) in network.heads.items():
    joint = name == "head"
    if not network.tied or _merged(network):
      tensors[f"{name}.weight"] = widen(weight) if joint else weight
    tensors[f"{name}.bias"] = bias
  return {
    name: np.ascontiguousarray(tensor, np.float32)
    for name, tensor in tensors.items()
  }
