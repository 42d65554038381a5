"""The tables of a Lark parser as a file: plain data, so that reading one executes nothing.

The files lie in `__pycache__`, under the rules of compiled modules: whoever may write there is trusted with the code
anyway; where nobody may, or PYTHONDONTWRITEBYTECODE is set, none is written.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from builder.oci.digests import hex_of

if TYPE_CHECKING:
    from lark import Lark

_SUFFIX = ".tables"


class Tables:
    """The file for a grammar; `made_from` is all that its content depends on."""

    def __init__(self, name: str, made_from: Sequence[str], directory: str | None = None) -> None:
        self._directory = directory or os.path.join(os.path.dirname(os.path.abspath(__file__)), "__pycache__")
        self._prefix = f"{name}-"
        key = hex_of("\0".join([sys.version, *made_from]).encode())[:32]
        self.path = os.path.join(self._directory, f"{self._prefix}{key}{_SUFFIX}")

    def read(self) -> dict[str, Any] | None:
        """What `write` wrote, or None."""
        try:
            with open(self.path, "rb") as file:
                found = marshal.loads(file.read())
        except (OSError, EOFError, ValueError, TypeError):
            return None
        return found if isinstance(found, dict) and {"data", "memo"} <= found.keys() else None

    def write(self, parser: Lark) -> None:
        """Keep the tables of a parser that has no transformer, and drop those of other versions."""
        if sys.dont_write_bytecode:
            return
        from lark.grammar import Rule
        from lark.lexer import TerminalDef

        data, memo = parser.memo_serialize([TerminalDef, Rule])
        temporary = f"{self.path}.{os.getpid()}"
        try:
            os.makedirs(self._directory, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(marshal.dumps(_plain({"data": data, "memo": memo})))
            os.rename(temporary, self.path)
            for name in os.listdir(self._directory):
                if name.startswith(self._prefix) and name.endswith(_SUFFIX) and not self.path.endswith(f"/{name}"):
                    os.unlink(os.path.join(self._directory, name))
        except (OSError, ValueError):  # ValueError: something that is no plain data, which then is not kept
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _plain(value: Any) -> Any:
    """The same with Lark's tokens, which are strings and more, as strings."""
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value
