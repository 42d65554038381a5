"""The part of Go's text/template that Docker's `--format` is used with, over JSON-like data.

Text between `{{` and `}}` is an action: a pipeline (`.Config.Env`, `index .Labels "a"`, `.Size | printf "%d"`), `if`,
`range` and `with` with `else` and `end`, `break` and `continue`, variables (`$i, $name := …`), comments; `{{-` and
`-}}` trim white space. Functions are Go's and Docker's (see `builder.cli.template_functions`). What is not known here
(`define`, `block`, `template`, methods) is a UsageError with the place, never printed as something else.

Data: a `Record` stands for a Go structure, any other dictionary for a map. A field that a structure does not have is
an error; a map has no value for a missing key, shown as `<no value>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import msgspec

from builder.cli.template_functions import FUNCTIONS, MISSING, Record, TemplateFailure, field, text_of, truth
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


class Template:
    """A parsed template. Raises UsageError when the text is none."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._body = _Parser(text).template()

    def render(self, data: Any) -> str:
        """The text for `data`. Raises UsageError."""
        pieces: list[str] = []
        try:
            _run(self._body, data, _Scope({"$": data}, None), pieces)
        except TemplateFailure as failure:
            raise _invalid(self._text, str(failure)) from None
        return "".join(pieces)


# --- what a template is


class _Constant(msgspec.Struct, frozen=True):
    value: Any


class _Chain(msgspec.Struct, frozen=True):
    """Fields of the dot (`variable` is ''), of a variable, or of a pipeline in parentheses."""

    variable: str
    fields: tuple[str, ...]
    inner: _Pipeline | None = None


class _Call(msgspec.Struct, frozen=True):
    function: str
    arguments: tuple[_Operand, ...]


_Operand = _Constant | _Chain | _Call


class _Pipeline(msgspec.Struct, frozen=True):
    """Commands, each the last argument of the next; its value may go into variables."""

    commands: tuple[_Operand, ...]
    variables: tuple[str, ...] = ()
    declares: bool = False


class _Branch(msgspec.Struct, frozen=True):
    """`if`, `range` or `with`."""

    kind: str
    pipeline: _Pipeline
    body: tuple[_Node, ...]
    otherwise: tuple[_Node, ...]


class _Jump(msgspec.Struct, frozen=True):
    kind: str


_Node = str | _Pipeline | _Branch | _Jump


# --- reading


def _invalid(text: str, why: str) -> UsageError:
    return UsageError(f"invalid template {text!r}: {why}", remedy="write for example '{{.ID}}' or '{{json .}}'")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._token: tuple[str, str] = ("", "")
        self._depth = 0

    def template(self) -> tuple[_Node, ...]:
        nodes, stop = self._list("")
        if stop:
            self._fail(f"{stop!r} without a beginning")
        return nodes

    def _fail(self, why: str) -> NoReturn:
        raise _invalid(self._text, why)

    def _list(self, kind: str) -> tuple[tuple[_Node, ...], str]:
        """Nodes up to the `end` or `else` of a `kind`, which is returned and of which nothing more was read."""
        nodes: list[_Node] = []
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

    def _action(self) -> _Node:
        group, word = self._token
        if group == "word" and word in ("if", "range", "with"):
            self._next()
            return self._branch(word)
        if group == "word" and word in ("break", "continue"):
            self._next()
            self._close()
            return _Jump(word)
        if group == "word" and word in _UNKNOWN:
            self._fail(f"{word!r} is not supported")
        pipeline = self._pipeline("")
        self._close()
        return pipeline

    def _branch(self, kind: str) -> _Branch:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail("it is nested too deeply")
        pipeline = self._pipeline(kind)
        self._close()
        body, stop = self._list(kind)
        otherwise: tuple[_Node, ...] = ()
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
        return _Branch(kind, pipeline, body, otherwise)

    def _pipeline(self, kind: str) -> _Pipeline:
        variables, declares = self._variables(kind)
        commands = [self._command()]
        while self._token == ("mark", "|"):
            self._next()
            command = self._command()
            if not isinstance(command, _Call):
                self._fail("only a function can take the result of a pipe")
            commands.append(command)
        return _Pipeline(tuple(commands), variables, declares)

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

    def _command(self) -> _Operand:
        group, word = self._token
        if group == "word" and word not in ("true", "false", "nil"):
            if word not in FUNCTIONS and word not in ("and", "or"):
                self._fail(f"there is no function {word!r}")
            self._next()
            arguments = []
            while (operand := self._operand()) is not None:
                arguments.append(operand)
            return _Call(word, tuple(arguments))
        operand = self._operand()
        if operand is None:
            self._fail("an empty action" if group == "close" else f"unexpected {word!r}")
        if self._token[0] != "close" and self._token[1] not in ("|", ")"):
            self._fail(f"unexpected {self._token[1]!r}: values take no arguments")
        return operand

    def _operand(self) -> _Operand | None:
        group, text = self._token
        if group == "chain":
            self._next()
            variable, *fields = text.split(".")
            return _Chain(variable, tuple(name for name in fields if name))
        if group == "mark" and text == "(":
            return self._parenthesis()
        if group == "word" and text in FUNCTIONS:
            self._next()
            return _Call(text, ())
        value = self._constant(group, text)
        if value is not None:
            self._next()
        return value

    def _constant(self, group: str, text: str) -> _Constant | None:
        if group == "string":
            return _Constant(_STRING_ESCAPES.sub(self._escape, text[1:-1]))
        if group == "raw":
            return _Constant(text[1:-1])
        if group == "number":
            return _Constant(float(text) if "." in text else int(text))
        if group == "word" and text in ("true", "false", "nil"):
            return _Constant({"true": True, "false": False, "nil": None}[text])
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

    def _parenthesis(self) -> _Chain:
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
        return _Chain("", fields, inner)


# --- running


class _Scope:
    """Variables, those of the enclosing block behind them."""

    def __init__(self, values: dict[str, Any], outer: _Scope | None) -> None:
        self._values = values
        self._outer = outer

    def declare(self, name: str, value: Any) -> None:
        self._values[name] = value

    def find(self, name: str) -> dict[str, Any]:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope._values:
                return scope._values
            scope = scope._outer
        raise TemplateFailure(f"there is no variable {name}")


class _Leave(Exception):
    """`break` or `continue`."""


def _run(nodes: tuple[_Node, ...], dot: Any, scope: _Scope, out: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif isinstance(node, _Jump):
            raise _Leave(node.kind)
        elif isinstance(node, _Pipeline):
            value = _evaluate(node, dot, scope)
            if node.variables:
                _assign(node, (value,), scope)
            else:
                out.append(text_of(value, top=True))
        else:
            _run_branch(node, dot, scope, out)


def _run_branch(node: _Branch, dot: Any, scope: _Scope, out: list[str]) -> None:
    inner = _Scope({}, scope)
    value = _evaluate(node.pipeline, dot, inner)
    if node.kind == "range":
        _run_range(node, value, dot, inner, out)
        return
    if node.pipeline.variables:
        _assign(node.pipeline, (value,), inner)
    if truth(value):
        _run(node.body, value if node.kind == "with" else dot, inner, out)
    else:
        _run(node.otherwise, dot, inner, out)


def _run_range(node: _Branch, value: Any, dot: Any, scope: _Scope, out: list[str]) -> None:
    empty = True
    for pair in _pairs(value):
        empty = False
        inner = _Scope({}, scope)
        if node.pipeline.variables:
            _assign(node.pipeline, pair if len(node.pipeline.variables) == 2 else pair[1:], inner)
        try:
            _run(node.body, pair[1], inner, out)
        except _Leave as leave:
            if str(leave) == "break":
                break
    if empty:
        _run(node.otherwise, dot, scope, out)


def _pairs(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Record):
        raise TemplateFailure("range needs a list or a map, not a structure")
    if isinstance(value, dict):
        yield from sorted(value.items())
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from ((number, number) for number in range(value))
    elif value is not None and value is not MISSING:
        raise TemplateFailure(f"range cannot go over {text_of(value)!r}")


def _assign(pipeline: _Pipeline, values: tuple[Any, ...], scope: _Scope) -> None:
    for name, value in zip(pipeline.variables, values, strict=True):
        if pipeline.declares:
            scope.declare(name, value)
        else:
            scope.find(name)[name] = value


def _evaluate(pipeline: _Pipeline, dot: Any, scope: _Scope) -> Any:
    value = _operand_value(pipeline.commands[0], dot, scope)
    for command in pipeline.commands[1:]:
        value = _operand_value(command, dot, scope, (value,))
    return value


def _operand_value(operand: _Operand, dot: Any, scope: _Scope, last: tuple[Any, ...] = ()) -> Any:
    if isinstance(operand, _Constant):
        return operand.value
    if isinstance(operand, _Chain):
        value = dot
        if operand.inner is not None:
            value = _evaluate(operand.inner, dot, scope)
        elif operand.variable:
            value = scope.find(operand.variable)[operand.variable]
        for name in operand.fields:
            value = field(value, name)
        return value
    if operand.function in ("and", "or"):
        return _shortcut(operand, dot, scope, last)
    arguments = [_operand_value(argument, dot, scope) for argument in operand.arguments]
    function: Callable[..., Any] = FUNCTIONS[operand.function]
    try:
        return function(*arguments, *last)
    except TypeError:
        raise TemplateFailure(f"wrong number or kind of arguments for {operand.function}") from None
    except ValueError as error:
        raise TemplateFailure(f"{operand.function}: {error}") from None


def _shortcut(call: _Call, dot: Any, scope: _Scope, last: tuple[Any, ...]) -> Any:
    """`and` and `or` evaluate only as many arguments as they need."""
    operands = [*call.arguments, *(_Constant(value) for value in last)]
    if not operands:
        raise TemplateFailure(f"{call.function} needs arguments")
    value: Any = None
    for operand in operands:
        value = _operand_value(operand, dot, scope)
        if truth(value) == (call.function == "or"):
            break
    return value


def json_text(value: Any) -> str:
    """Compact JSON, as `{{json .}}` writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
