"""Errors of the builder: each carries a cause, and where known a place and a remedy.

Every failure that a user can meet is a `BuilderError`. The command line prints `render(error)` and exits with the
error's `exit_status`; nothing below the command line prints or exits. Errors of foreign libraries are mapped to these
at the boundary where they come in.
"""

from __future__ import annotations

import errno

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT))
"""The numbers of errors that mean that a disk, or somebody's share of it, is full."""
MAKE_ROOM = "make room on the disk; 'builder prune' does where the store is"
"""The remedy where it may be another disk than the store's."""

_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # how Python keeps the bytes of a name that is not UTF-8


class BuilderError(Exception):
    """A failure with one clear cause.

    `cause` is a sentence without a final stop; `remedy` says what to do about it; `place` names where it was found
    (`Dockerfile:7`, a path, a reference); `details` are lines shown below it as they are (an excerpt, a log's end).

    `kept` is the name under which the state of the step that failed is kept, '' if none is.
    """

    exit_status = EXIT_FAILED
    kept = ""

    def __init__(
        self, cause: str, *, place: str | None = None, remedy: str | None = None, details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.place = place
        self.remedy = remedy
        self.details = details

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}" if self.place else self.cause


class UsageError(BuilderError):
    """The command line itself is wrong."""

    exit_status = EXIT_USAGE


class Interrupted(BuilderError):
    """The user asked to stop (SIGINT or SIGTERM)."""

    exit_status = EXIT_INTERRUPTED


class InvalidReference(BuilderError):
    """A text that should name an image does not."""


class DockerfileError(BuilderError):
    """A Dockerfile that cannot be read or does not make sense; `details` hold the excerpt with the line marked."""


class PlanError(BuilderError):
    """Instructions that are well-formed but cannot be planned (an unknown stage, a cycle)."""


class ContextError(BuilderError):
    """A build context, or something that should be in it, is missing or unusable."""


class RegistryError(BuilderError):
    """A registry refused, could not be reached, or served something wrong."""


class NotFoundError(RegistryError):
    """The registry answers that it has no such repository, manifest or blob."""


class ProxyError(BuilderError):
    """The environment names a proxy that cannot be used."""


class StoreError(BuilderError):
    """The local store cannot be read or written, or does not hold what was asked for."""


class DiskFull(StoreError):
    """There is no room left on the store's disk."""

    def __init__(self, place: str, what: str = "") -> None:
        """`what` could not be done at `place`."""
        cause = "the disk is full"
        super().__init__(f"{what}: {cause}" if what else cause, place=place, remedy="'builder prune' makes room")


class LayerError(BuilderError):
    """A layer or archive is malformed, hostile or cannot be unpacked."""


class StepFailed(BuilderError):
    """A step of the build failed: a command's exit status, a missing source, a refused option."""


class BudgetExceeded(BuilderError):
    """The image is larger, or wastes more, than the build may."""


class OfflineError(BuilderError):
    """Something is not here, and the build was told not to fetch it."""


class Unsupported(BuilderError):
    """Something that is known but that this version, or this machine, cannot do."""


def store_error(what: str, error: OSError, place: str) -> StoreError:
    """The error that says that `what` could not be done in the store at `place`; to be raised from `error`."""
    return DiskFull(place, what) if error.errno in NO_ROOM else StoreError(f"{what}: {error.strerror}", place=place)


def lacks_room(error: BaseException) -> bool:
    """Whether an error comes of a full disk."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DiskFull) or (isinstance(cause, OSError) and cause.errno in NO_ROOM):
            return True
        cause = cause.__cause__
    return False


def render(error: BuilderError) -> str:
    """The text shown to people: `place: cause`, the details, and the remedy, each on its line. Whatever registries,
    images and archives have put into them can neither add a line nor steer a terminal; what a step itself wrote last is
    shown as it is."""
    details = error.details if isinstance(error, StepFailed) else map(printable, error.details)
    lines = [f"error: {one_line(str(error))}", *details]
    remedy = error.remedy or (MAKE_ROOM if lacks_room(error) else "")
    if remedy:
        lines.append(f"help: {one_line(remedy)}")
    return "\n".join(lines)


def one_line(text: str) -> str:
    """The text as `printable` gives it, with spaces for line ends and tabs."""
    return printable(text if text.isprintable() else " ".join(text.split()))


def printable(name: str) -> str:
    """The name, or any text of a stranger's, with every character escaped that cannot be printed: controls, line ends,
    bytes that are not UTF-8."""
    if name.isprintable():
        return name
    return "".join(character if character.isprintable() else _escape(character) for character in name)


def _escape(character: str) -> str:
    number = ord(character)
    if number in _ESCAPED_BYTES:
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
