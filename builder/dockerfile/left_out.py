"""A Dockerfile's text without the values that it gives to variables which look like secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from builder.dockerfile.instructions import Arg, Dockerfile, Env, Instruction, KeyValue, OnBuild
from builder.dockerfile.located import logical_line, physical_lines
from builder.dockerfile.parser import parse_trigger
from builder.errors import DockerfileError


def leave_out_values(source: str, dockerfile: Dockerfile, is_secret: Callable[[str], bool]) -> str:
    """`source`, which `dockerfile` was parsed from, without what ARG and ENV give to variables whose names are secret.
    Every line stays where it is, and keeps its continuation. That counts for triggers of ONBUILD as well."""
    lines = physical_lines(source)
    mark = source[: len(source) - len(source.removeprefix("\ufeff"))]
    out: dict[int, set[int]] = {}
    for instruction in _instructions(dockerfile):
        pairs = _pairs(instruction, dockerfile.escape)
        if not any(pair.given and is_secret(_name(pair)) for pair in pairs):
            continue
        line = logical_line(lines, instruction.range.start, dockerfile.escape)
        for start, end in _spans(line.text, pairs, is_secret):
            for column in range(start, end):
                number, at = line.row.position(column + 1)
                out.setdefault(number - 1, set()).add(at - 1)
    for number, columns in out.items():
        lines[number] = "".join(letter for at, letter in enumerate(lines[number]) if at not in columns)
    return mark + "\n".join(lines)


def _instructions(dockerfile: Dockerfile) -> Iterator[Instruction]:
    yield from dockerfile.global_args
    for stage in dockerfile.stages:
        yield from stage.instructions


def _pairs(instruction: Instruction, escape: str) -> tuple[KeyValue, ...]:
    if isinstance(instruction, OnBuild):
        try:
            return _pairs(parse_trigger(instruction.trigger, escape), escape)
        except DockerfileError:
            return ()  # of no use to anybody
    return instruction.pairs if isinstance(instruction, (Arg, Env)) else ()


def _name(pair: KeyValue) -> str:
    """The name as far as it is written there, without quotes and the signs of variables."""
    return re.sub(r"\W", "", pair.key.source)


def _spans(text: str, pairs: tuple[KeyValue, ...], is_secret: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """Where a logical line has the values of secret names. What cannot be told apart goes whole."""
    position = 0
    for pair in pairs:
        written = pair.key.source if pair.legacy or not pair.given else f"{pair.key.source}="
        start = text.find(written, position)
        value = text.find(pair.value.source, start + len(written)) if start >= 0 else -1
        if value < 0:
            yield position, len(text)
            return
        position = value + len(pair.value.source)
        if pair.given and is_secret(_name(pair)):
            yield value, position
