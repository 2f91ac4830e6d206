"""The flags --method.FIELD=VALUE, which replace fields of a run's method, and --method.help."""

import dataclasses
import difflib
import inspect
import re
import sys
import textwrap
from typing import Any

from psrjax.cli._config import literal
from psrjax.errors import UserError
from psrjax.methods import base

_FLAG = re.compile(r"--?method\.([^=]+)(?:=(.*))?", re.DOTALL)
_HELP = "help"


class MethodFlags:
    """The fields given on the command line; to be made before the other flags are parsed.

    Args:
      argv: the command line, from which these flags are removed; `sys.argv` itself.
    """

    def __init__(self, argv: list[str] | None = None):
        argv = sys.argv if argv is None else argv
        found = [match for match in map(_FLAG.fullmatch, argv) if match]
        self._given: dict[str, str | None] = {match[1]: match[2] for match in found}
        argv[:] = [argument for argument in argv if not _FLAG.fullmatch(argument)]
        self.wants_help = _HELP in self._given
        self._given.pop(_HELP, None)

    @property
    def given(self) -> list[str]:
        """Lists the given fields, as typed: "method.FIELD=VALUE"."""
        return [
            f"method.{name}" + (f"={value}" if value is not None else "")
            for name, value in self._given.items()
        ]

    def apply(self, method: base.Method) -> base.Method:
        """Returns the method with the given fields.

        Raises:
          UserError: for a field that it does not have, or a value that the field does not take.
        """
        fields = _fields(method)
        values = {name: _value(fields, name, text) for name, text in self._given.items()}
        return base.build(type(method).__module__.split(".")[-1], **{**fields, **values})


def describe(method: base.Method) -> str:
    """Lists the fields of a method with their values and descriptions."""
    texts = {**_documented(base.Method), **_documented(type(method))}
    entries = []
    for name, value in _fields(method).items():
        text = textwrap.indent(textwrap.fill(texts.get(name, ""), 96), "    ")
        entries.append(f"--method.{name}={value}\n{text}".rstrip())
    return "\n".join(entries)


def _fields(method: base.Method) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(method))
    return {name: getattr(method, name) for name in names if name not in ("parent", "name")}


def _documented(kind: type) -> dict[str, str]:
    """Reads {field: text} from the section Attributes of a class's docstring."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2].split("\n\n")[0]
    entries = re.findall(r"^  (\w+): (.*(?:\n {4}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _value(fields: dict[str, Any], name: str, text: str | None) -> Any:
    if name not in fields:
        near = difflib.get_close_matches(name, list(fields), n=1)
        hint = f"did you mean --method.{near[0]}? " if near else ""
        raise UserError(f"--method.{name}: no such field; {hint}--method.{_HELP} lists them")
    before = fields[name]
    if text is None and not isinstance(before, bool):
        raise UserError(f"--method.{name}: give a value, as in --method.{name}={before}")
    value = text if isinstance(before, str) else literal(text or "true")
    if (type(value), type(before)) in ((int, float), (list, tuple)):
        value = type(before)(value)
    if type(value) is not type(before):
        raise UserError(f"--method.{name}={text}: not a value like {before!r}")
    return value
