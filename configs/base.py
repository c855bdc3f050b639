"""The defaults: a unidirectional language model of the standard library.

The other configs start from these defaults and override fields. So do flags,
such as `--config.model.hidden_size=256`. A field that declares no default is
empty, and the flag value `none` empties it again. seqrnn/config/fields/ has the
declarations, with rule, meaning and conditions: a field with conditions has an
effect only if one of them holds; otherwise setting it causes a warning.

Letters: B batch rows, T window length in symbols, V vocabulary size.
"""

from seqrnn.config.fields import FIELDS as FIELDS
from seqrnn.config.fields import get_config as get_config
