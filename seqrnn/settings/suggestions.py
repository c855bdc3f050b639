"""What a user probably meant by a name that does not exist."""

import difflib
from collections.abc import Iterable

# Names that other programs and papers use -> the field of this project.
ALIASES = {
  name: field
  for field, names in {
    "data.path": "corpus data_dir data_file data_path dataset_path file"
    " input_file",
    "data.source": "data dataset data_set corpus_name",
    "data.unit": "level token token_type tokenizer",
    "data.validation_fraction": "val_frac val_fraction val_split"
    " validation_split",
    "data.test_fraction": "test_frac test_split",
    "data.window": "block_size bptt context context_length max_len"
    " maxlen n_steps seq_len seq_length sentence_length sequence_length"
    " time_steps timesteps unroll window_size",
    "model.bidirectional": "bidir birnn",
    "model.cell": "architecture cell_type layer_type rnn rnn_type",
    "model.dropout": "drop drop_rate dropout_rate keep_prob",
    "model.embedding_size": "embed_dim embed_size embedding embedding_dim"
    " emb_dim emb_size embedding_units wordvec_size",
    "model.hidden_size": "d_model dim hidden hidden_dim hidden_units lstm_size"
    " n_hidden nhid num_hidden num_units rnn_size rnn_units size state_size"
    " units width",
    "model.layers": "depth n_layers nlayers num_layer num_layers",
    "optimizer.clip_norm": "clip clipnorm grad_clip gradient_clip"
    " gradient_clipping max_grad_norm",
    "optimizer.learning_rate": "alpha eta learn_rate learningrate lr step_size",
    "optimizer.name": "algorithm opt optim optimiser",
    "optimizer.weight_decay": "l2 wd weightdecay",
    "sample.length": "n_chars num_chars sample_size",
    "sample.prime": "primetext prompt seed_text start start_string start_text",
    "sample.streams": "n_samples num_samples",
    "sample.temperature": "temp",
    "sample.top_k": "topk",
    "sample.top_p": "nucleus topp",
    "schedule.name": "lr_schedule lr_scheduler scheduler",
    "schedule.warmup_steps": "num_warmup_steps warmup",
    "search.trials": "n_trials num_trials",
    "seed": "random_seed rng_seed",
    "train.batch_size": "batch batchsize batch_sz bs mini_batch_size"
    " minibatch minibatch_size",
    "train.epochs": "epoch max_epochs n_epochs nb_epoch num_epochs",
    "train.max_steps": "iterations iters max_iter max_iters num_steps steps",
    "train.patience": "early_stopping",
  }.items()
  for name in names.split()
}
_SPACE = "search.space."
_OF_DATA = ("data.", "model.", "optimizer.", "schedule.", "train.")
# Groups that a mode of a trained run reads.
_OF_MODES = ("evaluate", "predict", "sample", "embed", "detect", "report")


def near(wrong: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
  """Returns the name that is most like a wrong one; None: none is like it."""
  folded = {name.lower(): name for name in names}
  found = difflib.get_close_matches(wrong.lower(), folded, 1, cutoff)
  return folded[found[0]] if found else None


def hint(wrong: str, names: Iterable[str]) -> str:
  """Returns the end of a message that suggests a name; empty: none is near."""
  found = near(wrong, names)
  return f"; did you mean {found}?" if found else ""


def with_last_part(name: str, fields: Iterable[str]) -> list[str]:
  """Returns the fields whose last part is this name, without a search's."""
  return [
    field
    for field in fields
    if field.rpartition(".")[2] == name and not field.startswith(_SPACE)
  ]


def fields(wrong: str, known: Iterable[str]) -> list[str]:
  """Returns the fields that a name of no field may mean.

  The last part counts: users know the name of a setting, not its group.
  """
  if wrong.startswith(_SPACE):
    inner = [n.removeprefix(_SPACE) for n in known if n.startswith(_SPACE)]
    return [_SPACE + n for n in fields(wrong.removeprefix(_SPACE), inner)]
  known = [name for name in known if not name.startswith(_SPACE)]
  wrong = wrong.lower().replace("-", "_")
  if wrong in known:  # It differs by case only.
    return [wrong]
  group, _, last = wrong.rpartition(".")
  parts = {name.rpartition(".")[2] for name in known}
  aliases = {name for name, field in ALIASES.items() if field in known}
  meant = last if last in parts | aliases else near(last, parts | aliases, 0.75)
  if meant in parts:
    same = with_last_part(meant, known)
    if group in _OF_MODES:  # Training's own fields are less likely.
      same.sort(key=lambda field: field.startswith(_OF_DATA))
    return [f"{group}.{meant}"] if f"{group}.{meant}" in same else same
  return [ALIASES[meant]] if meant in aliases else []
