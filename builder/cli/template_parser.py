"""Reading templates: from text to a tree. `builder.cli.template` says what the language is and runs it."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import msgspec

from builder.cli.template_functions import FUNCTIONS
from builder.errors import UsageError

_ACTION = re.compile(r"\{\{(-(?=\s))?")
_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<raw>`[^`]*`)|(?P<close>-?\}\})|(?P<assign>:=)"""
    r"""|(?P<number>[+-]?\d+(?:\.\d+)?)(?![\w.])|(?P<chain>(?:\$\w*|\.)(?:\w+)?(?:\.\w+)*)|(?P<field>\.\w+)"""
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<mark>[|(),=])"""
)
_UNKNOWN = frozenset({"define", "block", "template"})
_STRING_ESCAPES = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[0-7]{3}|.)", re.DOTALL)
_DEEPEST = 100


class Constant(msgspec.Struct, frozen=True):
    value: Any


class Chain(msgspec.Struct, frozen=True):
    """Fields of the dot (`variable` is ''), of a variable, or of a pipeline in parentheses."""

    variable: str
    fields: tuple[str, ...]
    inner: Pipeline | None = None


class Call(msgspec.Struct, frozen=True):
    function: str
    arguments: tuple[Operand, ...]


Operand = Constant | Chain | Call


class Pipeline(msgspec.Struct, frozen=True):
    """Commands, each the last argument of the next; its value may go into variables."""

    commands: tuple[Operand, ...]
    variables: tuple[str, ...] = ()
    declares: bool = False


class Branch(msgspec.Struct, frozen=True):
    """`if`, `range` or `with`."""

    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


class Jump(msgspec.Struct, frozen=True):
    kind: str


Node = str | Pipeline | Branch | Jump


def invalid(text: str, why: str) -> UsageError:
    return UsageError(f"invalid template {text!r}: {why}", remedy="write for example '{{.ID}}' or '{{json .}}'")


class Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._token: tuple[str, str] = ("", "")
        self._depth = 0
        self._ranges = 0

    def template(self) -> tuple[Node, ...]:
        nodes, stop = self._list("")
        if stop:
            self._fail(f"{stop!r} without a beginning")
        return nodes

    def _fail(self, why: str) -> NoReturn:
        raise invalid(self._text, why)

    def _list(self, kind: str) -> tuple[tuple[Node, ...], str]:
        """Nodes up to the `end` or `else` of a `kind`, which is returned and of which nothing more was read."""
        nodes: list[Node] = []
        while True:
            match = _ACTION.search(self._text, self._position)
            literal = self._text[self._position : match.start() if match else None]
            if match is not None and match[1]:
                literal = literal.rstrip()
            if literal:
                nodes.append(literal)
            if match is None:
                if kind:
                    self._fail(f"{kind!r} without an end")
                return tuple(nodes), ""
            self._position = match.end()
            if self._comment():
                continue
            self._next()
            group, word = self._token
            if group == "word" and word in ("end", "else"):
                if not kind:
                    self._fail(f"{word!r} without a beginning")
                return tuple(nodes), word
            nodes.append(self._action())

    def _comment(self) -> bool:
        match = re.compile(r"\s*/\*.*?\*/(\s+-)?\}\}", re.DOTALL).match(self._text, self._position)
        if match is None:
            return False
        self._position = match.end()
        if match[1]:
            self._skip_space()
        return True

    def _skip_space(self) -> None:
        while self._position < len(self._text) and self._text[self._position].isspace():
            self._position += 1

    def _next(self) -> None:
        """Read the next token; white space counts only as a separator."""
        while True:
            match = _TOKEN.match(self._text, self._position)
            if match is None:
                rest = self._text[self._position :]
                self._fail(f"unexpected {rest[:12]!r}" if rest else "an action is not closed with '}}'")
            self._position = match.end()
            if match.lastgroup != "space":
                self._token = (str(match.lastgroup), match[0])
                return

    def _close(self) -> None:
        group, text = self._token
        if group != "close":
            self._fail(f"unexpected {text!r} in an action")
        if text.startswith("-"):
            self._skip_space()

    def _action(self) -> Node:
        group, word = self._token
        if group == "word" and word in ("if", "range", "with"):
            self._next()
            return self._branch(word)
        if group == "word" and word in ("break", "continue"):
            if not self._ranges:
                self._fail(f"{word!r} outside of a range")
            self._next()
            self._close()
            return Jump(word)
        if group == "word" and word in _UNKNOWN:
            self._fail(f"{word!r} is not supported")
        pipeline = self._pipeline("")
        self._close()
        return pipeline

    def _branch(self, kind: str) -> Branch:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail("it is nested too deeply")
        pipeline = self._pipeline(kind)
        self._close()
        self._ranges += kind == "range"
        body, stop = self._list(kind)
        self._ranges -= kind == "range"
        otherwise: tuple[Node, ...] = ()
        self._next()
        if stop == "else" and self._token == ("word", kind) and kind != "range":
            self._next()
            otherwise = (self._branch(kind),)  # its end is ours
        elif stop == "else":
            self._close()
            otherwise, stop = self._list(kind)
            if stop != "end":
                self._fail(f"a second 'else' of one {kind!r}")
            self._next()
            self._close()
        else:
            self._close()
        self._depth -= 1
        return Branch(kind, pipeline, body, otherwise)

    def _pipeline(self, kind: str) -> Pipeline:
        variables, declares = self._variables(kind)
        commands = [self._command()]
        while self._token == ("mark", "|"):
            self._next()
            command = self._command()
            if not isinstance(command, Call):
                self._fail("only a function can take the result of a pipe")
            commands.append(command)
        return Pipeline(tuple(commands), variables, declares)

    def _variables(self, kind: str) -> tuple[tuple[str, ...], bool]:
        """`$a :=`, `$a =`, and for range `$i, $a :=`."""
        group, name = self._token
        if group != "chain" or not name.startswith("$") or "." in name:
            return (), False
        start, token = self._position, self._token
        names = [name]
        self._next()
        if kind == "range" and self._token == ("mark", ","):
            self._next()
            names.append(self._token[1])
            self._next()
        if self._token[0] == "assign" or self._token == ("mark", "="):
            if any(not re.fullmatch(r"\$\w+", name) for name in names):
                self._fail(f"{names[-1]!r} is not a variable")
            declares = self._token[0] == "assign"
            self._next()
            return tuple(names), declares
        self._position, self._token = start, token
        return (), False

    def _command(self) -> Operand:
        group, word = self._token
        if group == "word" and word not in ("true", "false", "nil"):
            if word not in FUNCTIONS and word not in ("and", "or"):
                self._fail(f"there is no function {word!r}")
            self._next()
            arguments = []
            while (operand := self._operand()) is not None:
                arguments.append(operand)
            return Call(word, tuple(arguments))
        operand = self._operand()
        if operand is None:
            self._fail("an empty action" if group == "close" else f"unexpected {word!r}")
        if self._token[0] != "close" and self._token[1] not in ("|", ")"):
            self._fail(f"unexpected {self._token[1]!r}: values take no arguments")
        return operand

    def _operand(self) -> Operand | None:
        group, text = self._token
        if group == "chain":
            self._next()
            variable, *fields = text.split(".")
            return Chain(variable, tuple(name for name in fields if name))
        if group == "mark" and text == "(":
            return self._parenthesis()
        if group == "word" and text in FUNCTIONS:
            self._next()
            return Call(text, ())
        value = self._constant(group, text)
        if value is not None:
            self._next()
        return value

    def _constant(self, group: str, text: str) -> Constant | None:
        if group == "string":
            return Constant(_STRING_ESCAPES.sub(self._escape, text[1:-1]))
        if group == "raw":
            return Constant(text[1:-1])
        if group == "number":
            return Constant(float(text) if "." in text else int(text))
        if group == "word" and text in ("true", "false", "nil"):
            return Constant({"true": True, "false": False, "nil": None}[text])
        return None

    def _escape(self, match: re.Match[str]) -> str:
        text = match[0][1:]
        if text[0] in "xu":
            return chr(int(text[1:], 16)) if len(text) > 1 else self._fail("a bad escape in a string")
        if len(text) == 3:
            return chr(int(text, 8))
        known = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
        if text in known:
            return known[text]
        if text in "\\\"'":
            return text
        return self._fail(f"a bad escape \\{text} in a string")

    def _parenthesis(self) -> Chain:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail("it is nested too deeply")
        self._next()
        inner = self._pipeline("")
        if self._token != ("mark", ")"):
            self._fail("a parenthesis is not closed")
        fields: tuple[str, ...] = ()
        match = re.compile(r"(?:\.\w+)+").match(self._text, self._position)
        if match is not None:
            self._position = match.end()
            fields = tuple(match[0][1:].split("."))
        self._next()
        self._depth -= 1
        return Chain("", fields, inner)
