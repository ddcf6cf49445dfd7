"""forbid: never answers with the token whose id the key `never` of the request, or of the
plugin's table, names."""

from wit_world import exports
from wit_world.exports import logits_processor as wit
from wit_world.imports import rows
from wit_world.imports import settings, types
from componentize_py_types import Err

# The token that no request gets, unless it names its own.
default = None
# The token that each row does not get.
never = {}


def token(config, otherwise):
    value = config.get("never")
    if value is None:
        return otherwise
    if isinstance(value, settings.Value_Integer) and 0 <= value.value < 2**32:
        return value.value
    key = f"{config.path()}.never".lstrip(".")
    raise Err(types.Error_Config(types.ConfigError(key, "a token id", str(value))))


class LogitsProcessor(exports.LogitsProcessor):
    def create(self, config):
        global default
        default = token(config, None)

    def describe(self):
        return wit.Properties(need=wit.Need.NOTHING, is_argmax_invariant=False)

    def add(self, id, params, history):
        never[id] = token(params, default)

    def follow(self, changes):
        for change in changes:
            if isinstance(change, wit.Change_Forked):
                never[change.value.child] = never.get(change.value.parent)
            elif isinstance(change, wit.Change_Removed):
                never.pop(change.value, None)

    def apply(self, ids, vocab_size):
        for row, id in enumerate(ids):
            masked = never.get(id)
            if masked is not None and masked < vocab_size:
                rows.set(row, masked, float("-inf"))
