"""Flags with a value, `--no-trunc=false` or `-H=true`, which Docker's command line takes and click does not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import click

_WITH_VALUE = r"(?i)(-\w|--[\w-]+)=(true|false|t|f|1|0)"


class Command(click.Command):
    """A command all of whose flags may have a truth value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {
            name: parameter
            for parameter in self.params
            if isinstance(parameter, click.Option)
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        return super().parse_args(ctx, list(_words(args, options, interspersed=ctx.allow_interspersed_args)))


def _words(args: Sequence[str], options: Mapping[str, click.Option], *, interspersed: bool) -> Iterator[str]:
    """The words, flags without their values. What follows an option is its value, and what follows `--`, or the first
    operand where options must come first, is no option."""
    flags = {name: option for name, option in options.items() if option.is_flag and name in option.opts}
    words = iter(args)
    for word in words:
        if word == "--" or (not interspersed and (word == "-" or not word.startswith("-"))):
            yield word
            break
        yield from _plain(word, flags)
        if _wants_value(word, options):
            yield from islice(words, 1)
    yield from words


def _wants_value(word: str, options: Mapping[str, click.Option]) -> bool:
    """Whether the next word is an option's value. Letters may stand together, the last of them with a value."""
    if word.startswith("--"):
        return _takes_value(options.get(word))
    if not word.startswith("-"):
        return False
    for place, letter in enumerate(word[1:], 1):
        option = options.get(f"-{letter}")
        if option is None or _takes_value(option):
            return option is not None and place == len(word) - 1
    return False


def _takes_value(option: click.Option | None) -> bool:
    return option is not None and not option.is_flag and not option.count


def _plain(arg: str, flags: dict[str, click.Option]) -> list[str]:
    if arg.partition("=")[0] not in flags:
        return [arg]
    match = re.fullmatch(_WITH_VALUE, arg)
    if match is None:
        return [arg]
    if match[2].lower() in ("true", "t", "1"):
        return [match[1]]
    return flags[match[1]].secondary_opts[:1]  # what switches it off; a flag that is off by default needs nothing
