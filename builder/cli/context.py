"""`builder context`: what a build can see of its context, and why."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from builder.cli.flags import Command
from builder.cli.format import size, table
from builder.cli.listing import FORMATS, plural, print_document
from builder.context.ignore import Matcher, compile_rules, find_ignore_file
from builder.context.source import LocalContext, parse_context
from builder.errors import DockerfileError, UsageError
from builder.filesystem.names import printable

if TYPE_CHECKING:
    from builder.context.survey import Seen, Verdict

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_DOCKERFILE = click.option(
    "-f", "--file", "dockerfile", default="", metavar="PATH", help="The Dockerfile, which may have an ignore file."
)
_FORMAT = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", help="Lines for people, or JSON."
)
_IGNORED_SHOWN = 5


@click.group("context", context_settings=_SETTINGS, epilog="Example: builder context ls --sizes")
def command() -> None:
    """Show what a build can see of its context, which ignore files decide.

    The ignore file is <Dockerfile>.dockerignore or <Dockerfile>.containerignore beside the Dockerfile or, without one,
    .containerignore or .dockerignore in the context.
    """


@command.command(
    "ls",
    cls=Command,
    short_help="List what a build can see, and how large it is",
    epilog="Example: builder context ls --sizes -n 20 .",
)
@click.argument("path", metavar="[PATH]", default=".")
@click.option("--sizes", is_flag=True, help="Show sizes, with those of directories; largest first.")
@click.option("-n", "--top", type=click.IntRange(min=0), default=0, metavar="N", help="With --sizes: the N largest.")
@_DOCKERFILE
@_FORMAT
def ls(path: str, sizes: bool, top: int, dockerfile: str, form: str) -> None:
    """List the files that a build with the context PATH can see, a path a line.

    How many they are, and what is ignored, is told on standard error. A build reads no more of them than its COPY and
    ADD instructions select.
    """
    from builder.context.survey import survey

    if top and not sizes:
        raise UsageError("--top is for --sizes", remedy="add --sizes")
    root = _directory(path)
    matcher = _matcher(root, dockerfile)
    found = survey(root, matcher)
    seen = sorted(found.seen, key=lambda one: (-one.size, one.path)) if sizes else list(found.seen)
    seen = seen[: top or None]
    if form == "json":
        print_document(
            {
                "context": root,
                "ignoreFile": matcher.rules.source if matcher is not None else None,
                "size": found.whole.size,
                "files": found.whole.files,
                "entries": [_document(one) for one in seen],
                "ignored": {
                    "size": found.ignored_size,
                    "files": found.ignored_files,
                    "entries": [_document(one) for one in found.ignored],
                },
            }
        )
        return
    if sizes:
        rows = [f"{size(one.size)}\t{one.files}\t{_label(one)}" for one in seen]
        print(table(["SIZE\tFILES\tPATH", *rows]), end="")
    else:
        for one in seen:
            print(_label(one))
    sys.stdout.flush()
    print(f"{plural(found.whole.files, 'file')}, {size(found.whole.size)}", file=sys.stderr)
    if matcher is None:
        print("nothing is ignored: there is no .dockerignore or .containerignore", file=sys.stderr)
        return
    largest = ", ".join(f"{_label(one)} {size(one.size)}" for one in found.ignored[:_IGNORED_SHOWN])
    more = ", …" if len(found.ignored) > _IGNORED_SHOWN else ""
    print(
        f"ignored by {matcher.rules.source}: {plural(found.ignored_files, 'file')}, {size(found.ignored_size)}"
        f"{f' ({largest}{more})' if largest else ''}",
        file=sys.stderr,
    )


@command.command(
    "why",
    cls=Command,
    short_help="Say which line of an ignore file decided about a path",
    epilog="Example: builder context why node_modules src/main.c",
)
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
@click.option("-C", "--context", "context", default=".", metavar="DIR", help="The build context (default: here).")
@_DOCKERFILE
@_FORMAT
def why(paths: tuple[str, ...], context: str, dockerfile: str, form: str) -> None:
    """Say which line of which ignore file decided whether a build can see each PATH.

    A PATH is relative to the context, as in COPY, and need not exist. Of all rules that match a path or a directory
    above it the last one decides; one with ! keeps what others ignore.
    """
    from builder.context.local import LocalTree
    from builder.context.survey import judge

    root = _directory(context)
    matcher = _matcher(root, dockerfile)
    tree = LocalTree(root, matcher)

    def holds_seen(path: str) -> bool:
        return os.path.isdir(os.path.join(root, path)) and tree.lstat(path) is not None

    def exists(path: str) -> bool:
        return os.path.lexists(os.path.join(root, path))

    verdicts = [judge(matcher, _relative(root, path), holds_seen=holds_seen) for path in paths]
    if form == "json":
        print_document([_verdict(one, exists(one.path)) for one in verdicts])
        return
    for one in verdicts:
        print(f"{printable(one.path) or '.'}: {_reason(one)}{'' if exists(one.path) else ' (there is no such file)'}")


def _reason(one: Verdict) -> str:
    if one.rule is None:
        return "included: no rule matched" if one.source else "included: there is no .dockerignore or .containerignore"
    where = f"{one.source}:{one.rule.line}: {printable(one.rule.text.strip())}"
    if one.is_seen:
        return f"included by {where}"
    return f"ignored by {where}" + ("; something in it is included" if one.holds_seen else "")


def _verdict(one: Verdict, exists: bool) -> dict[str, Any]:
    rule = one.rule
    return {
        "path": one.path or ".",
        "included": one.is_seen,
        "exists": exists,
        "ignoreFile": one.source or None,
        "line": rule.line if rule is not None else None,
        "pattern": rule.text.strip() if rule is not None else None,
        "holdsIncluded": one.holds_seen,
    }


def _directory(path: str) -> str:
    source = parse_context(path)
    if not isinstance(source, LocalContext):
        raise UsageError(f"{path!r} is no local directory", remedy="fetch or unpack it first")
    return source.path


def _matcher(root: str, dockerfile: str) -> Matcher | None:
    """The rules for a build with this context and Dockerfile; without a Dockerfile those of the context alone."""
    from builder.api.inputs import find_dockerfile

    path: str | None
    try:
        path = find_dockerfile(root, dockerfile)
    except DockerfileError:
        if dockerfile:
            raise
        path = None
    file = find_ignore_file(root, path)
    return Matcher(compile_rules(file.text, file.name)) if file is not None else None


def _relative(root: str, path: str) -> str:
    """A path as rules see it: clean, relative to the context; '' for the context itself. Raises UsageError."""
    absolute = os.path.abspath(root)
    inside = os.path.normpath(path)
    if os.path.isabs(path):  # as in COPY, or as a path of the host
        inside = os.path.relpath(inside, absolute) if f"{inside}/".startswith(f"{absolute}/") else inside.lstrip("/")
    if inside == ".." or inside.startswith("../"):
        raise UsageError(f"{path!r} is not in the context", remedy="give a path relative to the context")
    return "" if inside == "." else inside


def _label(one: Seen) -> str:
    return printable(one.path) + ("/" if one.is_directory else "")


def _document(one: Seen) -> dict[str, Any]:
    return {
        "path": one.path,
        "type": "directory" if one.is_directory else "file",
        "size": one.size,
        "files": one.files,
    }
