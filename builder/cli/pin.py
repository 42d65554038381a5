"""`builder pin`: the images that a Dockerfile names, pinned to digests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import click

from builder.api.inputs import find_dockerfile
from builder.api.pinning import Pin, Pinning, find_pins, replace_file
from builder.cli import values
from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.errors import EXIT_FAILED, DockerfileError, UsageError
from builder.oci.reference import Reference
from builder.progress import ignore

_STDIN = "-"


@click.command("pin", cls=Command, epilog="Example: builder pin --update -f app/Dockerfile")
@click.argument("path", default=".", metavar="[PATH]")
@click.option("-f", "--file", "dockerfile", default="", metavar="FILE", help="The Dockerfile; - is a filter.")
@click.option(
    "--build-context",
    "contexts",
    multiple=True,
    metavar="NAME[=PLACE]",
    help="A context that builds are given (repeatable); its name is no image's.",
)
@click.option("--update", is_flag=True, help="Move the pins that are outdated, too.")
@click.option("--check", is_flag=True, help="Change nothing; say which pins are outdated, with status 1 if any is.")
@click.option("--dry-run", is_flag=True, help="Change nothing; show what would be changed as a diff.")
@click.pass_obj
def command(
    settings: Settings,
    path: str,
    dockerfile: str,
    contexts: tuple[str, ...],
    update: bool,
    check: bool,
    dry_run: bool,
) -> int:
    """Write NAME:TAG@DIGEST where a Dockerfile names images, with what their registries serve now.

    This concerns FROM, COPY --from and RUN --mount=…,from=; nothing else in the file changes. Pins that are there
    stay, unless --update is given. PATH is the directory of the Dockerfile, or the Dockerfile. Not pinned are names
    that depend on a build argument, which are listed, and triggers of ONBUILD.
    """
    if check and (update or dry_run):
        raise UsageError("--check changes nothing", remedy="leave out --update and --dry-run")
    filters = dockerfile == _STDIN
    file = "Dockerfile" if filters else _file(path, dockerfile)
    names = values.pairs(contexts, "--build-context", value_optional=True)
    pinning = find_pins(_read(file, filters), file, _registries(), names)
    if check:
        print("\n".join(_checked(pinning)))
        return EXIT_FAILED if pinning.outdated else 0
    made = pinning.rewritten(update=update)
    if not dry_run and not filters and made != pinning.text:
        replace_file(file, pinning.text, made)
    print("\n".join(_changed(pinning, update)), file=sys.stderr if dry_run or filters else sys.stdout)
    if dry_run or filters:
        sys.stdout.flush()
        sys.stdout.buffer.writelines(_diff(pinning, made) if dry_run else [made])
        sys.stdout.buffer.flush()
    return 0


def _file(path: str, dockerfile: str) -> str:
    if not dockerfile and os.path.isfile(path):
        return path
    found = find_dockerfile(path, dockerfile)
    return os.path.normpath(found)


def _read(file: str, filters: bool) -> bytes:
    if filters:
        return sys.stdin.buffer.read()
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise DockerfileError(f"cannot be read: {error.strerror}", place=file) from error


def _registries() -> Callable[[Reference], str]:
    """What asks registries for the digest that a tag has now."""
    from builder.api.planning import connector
    from builder.registry.pull import fetch_manifest

    session = connector(os.environ, ignore)()
    return lambda reference: fetch_manifest(session, reference)[0].digest


def _checked(pinning: Pinning) -> Iterator[str]:
    if not pinning.pins:
        yield f"{pinning.name}: names no image"
    for pin in pinning.pins:
        if pin.outdated:
            yield f"{_place(pinning, pin)}: outdated: {pin.use.name.partition('@')[0]} is {pin.current} now"
        elif pin.pinned and pin.current:
            yield f"{_place(pinning, pin)}: current: {pin.use.name}"
        else:
            yield _left(pinning, pin, "not pinned")


def _changed(pinning: Pinning, update: bool) -> Iterator[str]:
    if not pinning.pins:
        yield f"{pinning.name}: names no image"
    changes = pinning.changes(update=update)
    for pin in pinning.pins:
        if pin in changes:
            yield f"{_place(pinning, pin)}: {pin.use.written} → {pin.replacement}"
        elif pin.outdated:
            yield f"{_place(pinning, pin)}: {pin.use.name} is outdated; --update moves it to {pin.current}"
        elif pin.pinned and pin.current:
            yield f"{_place(pinning, pin)}: {pin.use.name} is current"
        else:
            yield _left(pinning, pin, "left as it is")


def _left(pinning: Pinning, pin: Pin, what: str) -> str:
    use = pin.use
    if use.obstacle:
        now = f" (by default {use.name})" if use.name and use.name != use.written else ""
        hint = "; pin it in the argument's value" if "argument" in use.obstacle else ""
        return f"{_place(pinning, pin)}: {use.written}{now}: {what}, because {use.obstacle}{hint}"
    if pin.pinned:
        return f"{_place(pinning, pin)}: {use.name} has no tag that could move"
    return f"{_place(pinning, pin)}: {use.name} is {what}"


def _place(pinning: Pinning, pin: Pin) -> str:
    return f"{pinning.name}:{pin.use.line}"


def _diff(pinning: Pinning, made: bytes) -> Iterator[bytes]:
    from difflib import diff_bytes, unified_diff

    before, after = pinning.text.splitlines(keepends=True), made.splitlines(keepends=True)
    old, new = (f"{side}/{pinning.name.lstrip('/')}".encode() for side in "ab")
    for line in diff_bytes(unified_diff, before, after, old, new):
        yield line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
