"""Scripts with which bash and zsh complete a command line.

A script has all names in it, so that a completion starts no Python.
"""

from collections.abc import Iterable, Iterator

from seqrnn.errors import UserError
from seqrnn.settings import recipes
from seqrnn.settings.command import MODES
from seqrnn.settings.config import FIELDS

_BASH = """\
# seqrnn --completion=bash > ~/.local/share/bash-completion/completions/seqrnn
_seqrnn() {{
  local line=${{COMP_LINE:0:COMP_POINT}} names= files= flags=
  local word=${{line##*[[:space:]]}} start=
  case $word in
{cases}
  esac
  local value=${{word#*=}}
  # bash completes the part of a word after =, unless = breaks no words.
  [[ $word == *=* && $COMP_WORDBREAKS != *=* ]] && start=${{word%%=*}}=
  COMPREPLY=($(compgen -P "$start" -W "$names" -- "$value"))
  if [[ $files ]]; then
    COMPREPLY+=($(compgen -P "$start" -f -- "$value"))
    compopt -o filenames 2>/dev/null
  fi
  [[ $flags ]] && compopt -o nospace 2>/dev/null
  return 0
}}
complete -F _seqrnn seqrnn
"""
_ZSH = """\
#compdef seqrnn
# seqrnn --completion=zsh > _seqrnn, in a folder of $fpath
_seqrnn() {{
  local names= files= flags=
  case $PREFIX in
{cases}
  esac
  compset -P '*='
  if [[ -n $flags ]]; then
    compadd -S '' -- ${{=names}}
  else
    compadd -- ${{=names}}
  fi
  [[ -n $files ]] && _files
  return 0
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _seqrnn "$@"
else
  compdef _seqrnn seqrnn
fi
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH}  # By shell.


def script(shell: str, flag_names: Iterable[str]) -> str:
  """Returns the script of a shell.

  Args:
    shell: the name of the shell.
    flag_names: the names of the flags that are no fields.

  Raises:
    UserError: there is no script for this shell.
  """
  if shell not in SCRIPTS:
    known = ", ".join(SCRIPTS)
    raise UserError(f"--completion={shell}: must be one of {known}")
  cases = "\n".join(f"    {case} ;;" for case in _cases(flag_names))
  return SCRIPTS[shell].format(cases=cases)


def _cases(flag_names: Iterable[str]) -> Iterator[str]:
  """Yields what each flag may be completed to, as cases of both shells."""
  yield f"--mode=*) names='{' '.join(MODES)}'"
  yield f"--config=*) names='{' '.join(recipes.names())}' files=1"
  yield "--workdir=*) files=1"
  # The fields of a search's space are as many again.
  fields = [name for name in FIELDS if not name.startswith("search.space.")]
  for name in fields:
    field = FIELDS[name]
    names = ("true", "false") if field.kind is bool else field.rule.names
    if name.endswith("path"):
      yield f"--config.{name}=*|--{name}=*) files=1"
    elif isinstance(names, tuple) and names:  # Others may need JAX.
      yield f"--config.{name}=*|--{name}=*) names='{' '.join(names)}'"
  yield "*=*)"
  flags = [f"--{name}=" for name in flag_names]
  flags += [f"--{part}{name}=" for part in ("config.", "") for name in fields]
  yield f"*) flags=1 names='{' '.join(flags)}'"
