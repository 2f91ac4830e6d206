"""The flags --config=NAME[:VARIANT] and --config.KEY=VALUE, built on those of ml_collections.

Those accept only keys that the config has. Open parts (`psrjax.config.OPEN`) take new ones too,
such as `--config.overrides.STAGE.steps=9`; these are removed from the command line here. A value
for all stages (`--config.steps=9`) outranks a preset's for one.
"""

import ast
import re
import sys
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from psrjax import config as config_lib
from psrjax.config import RunConfig
from psrjax.errors import UserError

_NAME = "config"
_OVERRIDE = re.compile(rf"--?{_NAME}\.([^=]+)(=?)(.*)", re.DOTALL)


class ConfigFlag:
    """Both flags; to be made before the other flags are parsed.

    Args:
      default: the path of a config's file and its variant, or None.
      help_text: of --config.
      argv: the command line, from which new keys are removed; `sys.argv` itself.
      flag_values: where the flags are defined.

    Raises:
      UserError: for a key that the config neither has nor takes.
    """

    def __init__(
        self,
        default: str | None,
        help_text: str,
        *,
        argv: list[str] | None = None,
        flag_values: flags.FlagValues = flags.FLAGS,
    ):
        argv = sys.argv if argv is None else argv
        self._new = _take_new_keys(argv, default)
        self._flags = flag_values
        config_flags.DEFINE_config_file(
            _NAME, default, help_text, flag_values=flag_values, sys_argv=argv
        )

    @property
    def value(self) -> RunConfig | None:
        """The locked config with the given values; None without --config."""
        flag: Any = self._flags[_NAME]
        if flag.value is None:
            return None
        return config_lib.override(flag.value, {**flag.override_values, **self._new})

    def require(self) -> RunConfig:
        """Returns `value`.

        Raises:
          UserError: without --config, with the configs that there are.
        """
        if self.value is None:
            names = ", ".join(config_lib.names())
            raise UserError(f"--config: name a config, NAME or NAME:VARIANT; there are {names}")
        return self.value


def _take_new_keys(argv: list[str], default: str | None) -> dict[str, Any]:
    """Removes the flags of keys that the config does not have yet; returns {key: value}."""
    given = [each.split("=", 1)[1] for each in argv if re.match(rf"--?{_NAME}=", each)]
    path = given[-1] if given else default
    if path is None or not any(map(_OVERRIDE.fullmatch, argv)):
        return {}
    config, new, kept, rest = config_lib.load(path), {}, [], iter(argv)
    for argument in rest:
        found = _OVERRIDE.fullmatch(argument)
        if not found or _has(config, found[1]):
            kept.append(argument)
            continue
        key, text = found[1], found[3] if found[2] else next(rest, None)
        if text is None:
            raise UserError(f"--{_NAME}.{key}: give a value, as in --{_NAME}.{key}=3")
        new[key] = literal(text)
        config_lib.update(config, {key: new[key]})
    argv[:] = kept
    return new


def _has(config: Any, key: str) -> bool:
    node = config
    for part in re.sub(r"\[.*", "", key).split("."):
        if not isinstance(node, ConfigDict) or part not in node:
            return False
        node = node[part]
    return True


def literal(text: str) -> Any:
    """Reads a Python literal, true or false; other text stays as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)
