"""Wrong command lines: what click found, as one message in our words."""

from __future__ import annotations

import click


def describe(error: click.ClickException) -> str:
    """`error: builder build: no such option '--tagg'`, and below it what to do about it."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    if context is None:  # from click's parser, which knows of no command
        return f"error: {_plain(error.format_message())}\nhelp: the command's --help shows how it is used"
    path = context.command_path
    what = "commands" if isinstance(error, click.exceptions.NoSuchCommand) else "options"
    lists = f"'{path} --help' lists the {what}"
    if isinstance(error, click.exceptions.NoSuchOption | click.exceptions.NoSuchCommand):
        cause = _plain(error.message)
        hidden = {name for option in context.command.params if getattr(option, "hidden", False) for name in option.opts}
        close = [name for name in error.possibilities or () if name not in hidden]
        remedy = f"did you mean {_alternatives(close)}? {lists}" if close else lists
    elif isinstance(error, click.MissingParameter):
        name = error.param.metavar or error.param.human_readable_name if error.param is not None else "an argument"
        cause = f"{name} is missing"
        remedy = f"write {path} {_usage(context)}".rstrip()
    elif "unexpected extra argument" in error.message:
        cause = _plain(error.format_message())
        remedy = f"write {path} {_usage(context)}".rstrip()
    else:
        cause = _plain(error.format_message())
        remedy = f"'{path} --help' shows how it is used"
    return f"error: {path}: {cause}\nhelp: {remedy}"


def _usage(context: click.Context) -> str:
    return " ".join(context.command.collect_usage_pieces(context))


def _plain(message: str) -> str:
    """Click's sentence as a cause: no capital letter, no stop at its end."""
    text = message.strip().removesuffix(".")
    return text[:1].lower() + text[1:]


def _alternatives(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
