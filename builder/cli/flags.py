"""Flags with a value, `--no-trunc=false` or `-H=true`, which Docker's command line takes and click does not."""

from __future__ import annotations

import re

import click

_WITH_VALUE = r"(?i)(-\w|--[\w-]+)=(true|false|t|f|1|0)"


class Command(click.Command):
    """A command all of whose flags may have a truth value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {
            name: parameter
            for parameter in self.params
            if isinstance(parameter, click.Option) and parameter.is_flag
            for name in parameter.opts
        }
        end = args.index("--") if "--" in args else len(args)
        plain = [given for arg in args[:end] for given in _plain(arg, flags)]
        return super().parse_args(ctx, plain + args[end:])


def _plain(arg: str, flags: dict[str, click.Option]) -> list[str]:
    if arg.partition("=")[0] not in flags:
        return [arg]
    match = re.fullmatch(_WITH_VALUE, arg)
    if match is None:
        return [arg]
    if match[2].lower() in ("true", "t", "1"):
        return [match[1]]
    return flags[match[1]].secondary_opts[:1]  # what switches it off; a flag that is off by default needs nothing
