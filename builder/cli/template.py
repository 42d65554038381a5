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
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from builder.cli.template_functions import FUNCTIONS, ON_TITLES
from builder.cli.template_parser import Branch, Call, Chain, Constant, Jump, Node, Operand, Parser, Pipeline, invalid
from builder.cli.template_values import MISSING, Record, TemplateFailure, field, text_of, truth


class Template:
    """A parsed template. Raises UsageError when the text is none. `functions` take the place of those of the same
    name."""

    def __init__(self, text: str, functions: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self._functions = FUNCTIONS | dict(functions or {})
        self._text = text
        self._body = Parser(text).template()

    def render(self, data: Any) -> str:
        """The text for `data`. Raises UsageError."""
        pieces: list[str] = []
        try:
            _run(self._body, data, _Scope({"$": data}, None, self._functions), pieces)
        except TemplateFailure as failure:
            raise invalid(self._text, str(failure)) from None
        return "".join(pieces)

    def titles(self, headers: Record) -> str:
        """The line above a table: what changes a field leaves its title as it is, and where that does not do the line
        ends, as in Docker's formatter."""
        pieces: list[str] = []
        with suppress(TemplateFailure):
            _run(self._body, headers, _Scope({"$": headers}, None, self._functions | ON_TITLES), pieces)
        return "".join(pieces)


class _Scope:
    """Variables, those of the enclosing block behind them."""

    def __init__(
        self, values: dict[str, Any], outer: _Scope | None, functions: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self._values = values
        self._outer = outer
        self.functions: Mapping[str, Callable[..., Any]] = functions or (outer.functions if outer else FUNCTIONS)

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


def _run(nodes: tuple[Node, ...], dot: Any, scope: _Scope, out: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif isinstance(node, Jump):
            raise _Leave(node.kind)
        elif isinstance(node, Pipeline):
            value = _evaluate(node, dot, scope)
            if node.variables:
                _assign(node, (value,), scope)
            else:
                out.append(text_of(value, top=True))
        else:
            _run_branch(node, dot, scope, out)


def _run_branch(node: Branch, dot: Any, scope: _Scope, out: list[str]) -> None:
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


def _run_range(node: Branch, value: Any, dot: Any, scope: _Scope, out: list[str]) -> None:
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


def _assign(pipeline: Pipeline, values: tuple[Any, ...], scope: _Scope) -> None:
    for name, value in zip(pipeline.variables, values, strict=True):
        if pipeline.declares:
            scope.declare(name, value)
        else:
            scope.find(name)[name] = value


def _evaluate(pipeline: Pipeline, dot: Any, scope: _Scope) -> Any:
    value = _operand_value(pipeline.commands[0], dot, scope)
    for command in pipeline.commands[1:]:
        value = _operand_value(command, dot, scope, (value,))
    return value


def _operand_value(operand: Operand, dot: Any, scope: _Scope, last: tuple[Any, ...] = ()) -> Any:
    if isinstance(operand, Constant):
        return operand.value
    if isinstance(operand, Chain):
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
    function = scope.functions[operand.function]
    try:
        return function(*arguments, *last)
    except (TypeError, AttributeError):
        raise TemplateFailure(f"wrong number or kind of arguments for {operand.function}") from None
    except ValueError as error:
        raise TemplateFailure(f"{operand.function}: {error}") from None


def _shortcut(call: Call, dot: Any, scope: _Scope, last: tuple[Any, ...]) -> Any:
    """`and` and `or` evaluate only as many arguments as they need."""
    operands = [*call.arguments, *(Constant(value) for value in last)]
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
