"""One logical line taken apart: keyword, flags and a body in the form of its instruction (parser/line_parsers.go).

This is the first half of reading an instruction and knows forms only; `assemble.py` knows what they mean. ONBUILD shows
the difference: of its trigger only the form is read, since it is meant for another build.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from builder.dockerfile import plain
from builder.dockerfile.lines import no_nul
from builder.dockerfile.text import SPACE, quote
from builder.errors import DockerfileError

if TYPE_CHECKING:
    from builder.dockerfile.forms import Split


class Node(msgspec.Struct, frozen=True):
    """A line's parts. `arguments` depend on the form; `json` is true for the exec form; `child` is ONBUILD's trigger.

    The arguments of ENV and LABEL are names and values in turn, `legacy` where they were written with a blank.
    """

    keyword: str
    flags: tuple[str, ...]
    body: str
    arguments: tuple[str, ...] = ()
    json: bool = False
    legacy: bool = False
    child: Node | None = None

    @property
    def instruction(self) -> str:
        """The keyword in lower case."""
        return self.keyword.lower()

    @property
    def takes_heredocs(self) -> bool:
        """RUN, COPY and ADD, also behind ONBUILD, unless in exec form."""
        node = self.child if self.instruction == "onbuild" and self.child else self
        return node.instruction in ("run", "copy", "add") and not node.json


def read_node(line: str, escape: str) -> Node:
    """Take a logical line apart. Raises DockerfileError (without a place) where the form is broken."""
    line = line.strip(SPACE)
    if not line:  # nothing but continuations up to the end of the file
        return Node("", (), "")
    keyword, flags, body = _split(line, escape)
    form = _FORMS.get(keyword.lower())
    node = Node(keyword, flags, body)
    return form(node, escape) if form and body else node


def _split(line: str, escape: str) -> Split:
    found = plain.command(line)
    if found is not None:
        return found
    plain.turn_to_grammar()
    from builder.dockerfile.forms import line_parser
    from builder.dockerfile.grammar import exchange

    split: Split = line_parser().parse(exchange(line, escape), start="command")  # type: ignore[assignment]
    keyword, flags, body = split
    return (
        exchange(keyword, escape), tuple(exchange(flag, escape) for flag in flags), exchange(body, escape)
    )  # fmt: skip


def _strings(rule: str, text: str, escape: str = "\\") -> tuple[str, ...] | None:
    """The strings that a rule gives, None where the text does not have its form."""
    known = _PLAIN[rule](text) if rule in _PLAIN else None
    if known is not None:
        return tuple(known)
    plain.turn_to_grammar()
    from lark import UnexpectedInput

    from builder.dockerfile.forms import line_parser
    from builder.dockerfile.grammar import exchange

    try:
        found: list[str] = line_parser().parse(exchange(text, escape), start=rule)  # type: ignore[assignment]
    except UnexpectedInput:
        return None
    return tuple(exchange(item, escape) for item in found)


def _text(node: Node, escape: str) -> Node:
    return msgspec.structs.replace(node, arguments=(node.body,))


def _arguments(node: Node, escape: str) -> Node:
    return msgspec.structs.replace(node, arguments=_strings("arguments", node.body) or ())


def _array(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array, None for a text that is no JSON array: BuildKit takes that for the shell form."""
    if not text.startswith("["):
        return None
    known = plain.array(text)
    if known is not None:
        return tuple(known)
    plain.turn_to_grammar()
    from lark import UnexpectedInput

    from builder.dockerfile.forms import line_parser

    try:
        found: list[str] | None = line_parser().parse(text, start="array")  # type: ignore[assignment]
    except UnexpectedInput:
        return None
    if found is None:
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only",
            remedy='put every element in double quotes, as in ["executable", "argument"], or do not begin with [',
        )
    if any("\0" in item for item in found):
        raise no_nul()
    return tuple(found)


def _command(node: Node, escape: str) -> Node:
    array = _array(node.body)
    if array is not None:
        return msgspec.structs.replace(node, arguments=array, json=True)
    return _text(node, escape)


def _list(node: Node, escape: str) -> Node:
    array = _array(node.body)
    if array is not None:
        return msgspec.structs.replace(node, arguments=array, json=True)
    return _arguments(node, escape)


def _words(node: Node, escape: str) -> Node:
    return msgspec.structs.replace(node, arguments=_strings("words", node.body, escape) or ())


def _pairs(node: Node, escape: str) -> Node:
    words = _strings("words", node.body, escape) or ()
    if not words:
        return node
    name = node.instruction.upper()
    if "=" not in words[0]:
        pair = _strings("legacy_pair", node.body)
        if pair is None:
            raise DockerfileError(f"{name} must have two arguments", remedy=f"expected {name} name=value")
        return msgspec.structs.replace(node, arguments=pair, legacy=True)
    flat: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f"can't find = in {quote(word)}: {name} takes pairs of the form name=value",
                remedy=f"expected {name} name=value …; put a value with spaces in quotes",
            )
        flat += [key, value]
    return msgspec.structs.replace(node, arguments=tuple(flat))


def _origin(node: Node, escape: str) -> Node:
    return msgspec.structs.replace(node, arguments=_strings("origin", node.body) or ())


def _health(node: Node, escape: str) -> Node:
    kind, *rest = _strings("health", node.body) or ("",)
    command = _command(msgspec.structs.replace(node, body=rest[0]), escape) if rest else node
    return msgspec.structs.replace(command, body=node.body, arguments=(kind, *command.arguments))


def _trigger(node: Node, escape: str) -> Node:
    return msgspec.structs.replace(node, child=read_node(node.body, escape))


_FORMS: dict[str, Callable[[Node, str], Node]] = {
    "add": _list,
    "arg": _words,
    "cmd": _command,
    "copy": _list,
    "entrypoint": _command,
    "env": _pairs,
    "expose": _arguments,
    "from": _origin,
    "healthcheck": _health,
    "label": _pairs,
    "maintainer": _text,
    "onbuild": _trigger,
    "run": _command,
    "shell": _command,
    "stopsignal": _text,
    "user": _text,
    "volume": _list,
    "workdir": _text,
}
_PLAIN = {"words": plain.words, "arguments": plain.words, "origin": plain.origin}
INSTRUCTIONS = tuple(name.upper() for name in _FORMS)
