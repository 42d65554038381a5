"""What the image commands share: the store, platforms, and output that may be an archive."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from builder import config as configuration
from builder.cli.settings import Settings
from builder.errors import BuilderError, StoreError, Unsupported, UsageError
from builder.oci.platform import parse_platform
from builder.oci.spec import Platform
from builder.store.store import Store


def open_store(settings: Settings, *, as_root: bool = False) -> Store:
    """The store that the global options name. `as_root` is for commands that make or remove unpacked layers: the files
    in them have owners of their own, so that without root a user namespace is entered, if the system allows it."""
    if as_root and os.geteuid() != 0:
        from builder.cli.rootless import become_root

        with suppress(Unsupported):
            become_root()
    return Store(settings.root, configuration.limits_of(os.environ))


def platform_of(text: str) -> Platform | None:
    return parse_platform(text) if text else None


def only_platform(texts: tuple[str, ...]) -> Platform | None:
    """The platform of options that take several in Docker, whose index of some of them is not made here. Raises
    UsageError for more than one."""
    names = [name for text in texts for name in text.split(",") if name]
    if len(names) > 1:
        raise UsageError("--platform takes one platform here", remedy="leave it out for all platforms")
    return platform_of(names[0]) if names else None


@contextmanager
def archive_input(path: str) -> Iterator[BinaryIO]:
    """Where an archive is read from: a file, or standard input for '' and `-`, unless that is a terminal."""
    if path in ("", "-"):
        if sys.stdin.isatty():
            raise UsageError("there is no archive on standard input", remedy="name a file, or redirect the input")
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115  # errors of the block are none of this file's
    except OSError as error:
        remedy = "name an archive that is there" if isinstance(error, FileNotFoundError) else None
        raise StoreError(f"cannot be read: {error.strerror}", place=path, remedy=remedy) from error
    with file:
        yield file


@contextmanager
def archive_output(path: str) -> Iterator[BinaryIO]:
    """Where an archive is written to: a file that appears when it is complete, or standard output without a path,
    unless that is a terminal."""
    if path in ("", "-") and sys.stdout.isatty():
        raise UsageError(
            "an archive is not written to a terminal", remedy="give a file with -o, or redirect the output"
        )
    from builder.export.destination import destination

    with destination(path or "-") as file:
        yield file


class Failures:
    """Errors of a command that goes on with the next argument. `end` raises them as one."""

    def __init__(self) -> None:
        self._errors: list[BuilderError] = []

    def add(self, error: BuilderError) -> None:
        self._errors.append(error)

    def end(self) -> None:
        if not self._errors:
            return
        if len(self._errors) == 1:
            raise self._errors[0]
        first, *others = self._errors
        raise StoreError(
            first.cause, place=first.place, remedy=first.remedy, details=tuple(f"error: {error}" for error in others)
        )
