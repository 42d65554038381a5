"""What Docker's command line takes and click does not: flags with a value, `--no-trunc=false` or `-H=true`, and short
options whose value follows `=`, `-o=FILE`, as pflag's `parseSingleShortArg` reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import click

from builder.store.record_names import POSITION

_WITH_VALUE = r"(?i)(-\w|--[\w-]+)=(true|false|t|f|1|0)"


class Command(click.Command):
    """A command all of whose flags may have a truth value, and whose short options' values may follow `=`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {
            name: parameter
            for parameter in self.params
            if isinstance(parameter, click.Option)
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        return super().parse_args(ctx, list(_words(args, options, interspersed=ctx.allow_interspersed_args)))


class BuildCommand(Command):
    """A command on builds, of which `-1` is the newest, `-2` the one before. Anything may stand after `--`."""

    ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = args[args.index("--") + 1 :] if "--" in args else []
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "") if isinstance(parameter, click.Argument) else None
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str) and len(text) > 1 and text[0] == "-" and not re.fullmatch(POSITION, text):
                    if text not in words:
                        raise click.NoSuchOption(text, ctx=ctx)
                    words.remove(text)
        return rest


def _words(args: Sequence[str], options: Mapping[str, click.Option], *, interspersed: bool) -> Iterator[str]:
    """The words, flags without their values, and values behind a short option's `=` as words of their own. What follows
    an option is its value, and what follows `--`, or the first operand where options must come first, is no option."""
    flags = {name: option for name, option in options.items() if option.is_flag and name in option.opts}
    words = iter(args)
    for word in words:
        if word == "--" or (not interspersed and (word == "-" or not word.startswith("-"))):
            yield word
            break
        begin = _value_begins(word, options)
        if 0 < begin < len(word) - 1 and word[begin] == "=":
            yield from (word[:begin], word[begin + 1 :])
            continue
        yield from _plain(word, flags)
        if begin == len(word):
            yield from islice(words, 1)
    yield from words


def _value_begins(word: str, options: Mapping[str, click.Option]) -> int:
    """Where an option's value begins: at the word's end if it is the next word, 0 if there is none or it is `--…=`'s.
    Letters may stand together, the last of them with a value."""
    if word.startswith("--"):
        return len(word) if _takes_value(options.get(word)) else 0
    if not word.startswith("-"):
        return 0
    for place, letter in enumerate(word[1:], 1):
        option = options.get(f"-{letter}")
        if option is None:
            return 0
        if _takes_value(option):
            return place + 1
    return 0


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
