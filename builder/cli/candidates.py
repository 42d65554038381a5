"""What a shell may complete: names of images, stages, arguments, platforms, by what an option or argument takes.

Commands are not told apart: what a parameter takes is what its metavar says. Nothing is created, nothing but the index
of the store and the Dockerfile is read, and what cannot be read has no candidates.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import click
from click.shell_completion import CompletionItem

from builder.places import find_root

_PLATFORMS = (
    "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386", "linux/ppc64le", "linux/riscv64",
    "linux/s390x",
)  # fmt: skip
_OUTPUTS = (
    "type=image", "type=registry", "type=oci,dest=", "type=docker,dest=", "type=local,dest=", "type=tar,dest=",
    "type=cacheonly",
)  # fmt: skip
_FROM = re.compile(rb"^[ \t]*FROM[ \t]+\S.*?[ \t]AS[ \t]+([A-Za-z0-9_.-]+)", re.IGNORECASE | re.MULTILINE)
_ARG = re.compile(rb"^[ \t]*ARG[ \t]+([A-Za-z_][A-Za-z0-9_]*)", re.IGNORECASE | re.MULTILINE)
_DOCKERFILES = ("Dockerfile", "dockerfile", "Containerfile")
_LARGEST = 1 << 20

Source = Callable[[click.Context], Iterable[str]]


def equip(command: click.Command) -> None:
    """Let the parameters of a command, and of the commands below it, complete what they take."""
    of_image = any(isinstance(one, click.Argument) and one.metavar in _IMAGES for one in command.params)
    for parameter in command.params:
        metavar = parameter.metavar or ""
        if metavar in _IMAGES:
            found: object = partial(_values, _images)
        elif metavar in _SOURCES:
            found = partial(_values, _SOURCES[metavar])
        elif metavar in _FILES and not of_image:
            found = partial(_paths, "file")
        elif metavar in _DIRECTORIES and not of_image:
            found = partial(_paths, "dir")
        elif parameter.name == "outputs":
            found = partial(_values, lambda _: _OUTPUTS)
        else:
            continue
        setattr(parameter, "shell_complete", found)  # noqa: B010  # a method, which mypy lets nobody replace
    if isinstance(command, click.Group):
        for below in getattr(command, "commands", {}).values():
            equip(below)


def _values(source: Source, context: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """What begins as the last of several values with commas between them."""
    before, comma, last = incomplete.rpartition(",")
    if incomplete.startswith("type="):
        before, comma, last = "", "", incomplete
    names = dict.fromkeys(source(context))
    return [CompletionItem(f"{before}{comma}{name}") for name in names if name.startswith(last)]


def _paths(kind: str, context: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    return [CompletionItem(incomplete, type=kind)]


def _images(context: click.Context) -> Iterator[str]:
    """The names in the store's index, as people write them."""
    import msgspec

    from builder.oci import reference
    from builder.oci.spec import IMAGE_NAME

    root = context.find_root().params.get("root") or find_root(os.environ)
    if not root:
        return
    try:
        with open(os.path.join(str(root), "index.json"), "rb") as file:
            entries = msgspec.json.decode(file.read()).get("manifests", [])
    except (OSError, msgspec.DecodeError):
        return
    for entry in reversed(entries):
        name = (entry.get("annotations") or {}).get(IMAGE_NAME)
        if name:
            yield reference.parse(name).familiar


def _stages(context: click.Context) -> Iterator[str]:
    return (match.decode() for match in _FROM.findall(_dockerfile(context)))


def _arguments(context: click.Context) -> Iterator[str]:
    return (f"{match.decode()}=" for match in _ARG.findall(_dockerfile(context)))


def _dockerfile(context: click.Context) -> bytes:
    given = str(context.params.get("dockerfile") or "")
    directory = str(context.params.get("context") or ".")
    paths = [given, os.path.join(directory, given)] if given else [os.path.join(directory, n) for n in _DOCKERFILES]
    for path in paths:
        try:
            with open(path, "rb") as file:
                return file.read(_LARGEST)
        except OSError:
            continue
    return b""


_IMAGES = (
    "IMAGE", "IMAGE…", "IMAGE[:TAG]", "NAME[:TAG]…", "NAME[:TAG]", "[REPOSITORY[:TAG]]", "A", "B",
    "NAME[:TAG|@DIGEST]",
)  # fmt: skip
_SOURCES: dict[str, Source] = {
    "OS/ARCH": lambda _: _PLATFORMS,
    "STAGE": _stages,
    "NAME[=VALUE]": _arguments,
}
_FILES = ("FILE", "PATH", "PATH|URL", "FILE.html", "FILE.json", "PATH…", "[PATH]", "FILE|URL|-")
_DIRECTORIES = ("DIR", "PATH|URL|-", "[PATH|URL|-]")
