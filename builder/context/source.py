"""What the texts that name a build context mean: the main argument of `build`, and VALUE in `--build-context
NAME=VALUE`.

The rules are buildx's: an existing directory wins over everything else, `-` is standard input, then come git
repositories, other URLs, and for named contexts images, layouts and targets.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec

from builder.errors import ContextError, InvalidReference
from builder.oci.reference import DEFAULT_TAG, parse

if TYPE_CHECKING:
    from builder.context.git_url import GitRef

MAX_DOCKERFILE = 16 << 20
"""The bytes of a Dockerfile that are read, wherever it is from."""

_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)://"
_DIGEST = r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}"


class Origin(msgspec.Struct, frozen=True):
    """Where a context was fetched from, without credentials, and what came: `sha256:…` of an archive, `sha1:…` or
    `sha256:…` of a commit. `subdir` is the directory that was taken of it."""

    uri: str
    digest: str
    subdir: str = ""


class ContextDirectory(msgspec.Struct, frozen=True):
    """A context as a directory of the host. `owners` are those of files that are not 0:0; `dockerfile` is the text of a
    context that is nothing else (its directory is empty). `time`, in seconds, is what SOURCE_DATE_EPOCH=context means:
    that of a commit, what a server says, or that of an archive's newest file; a directory has none."""

    path: str
    owners: dict[str, tuple[int, int]] = {}
    dockerfile: bytes | None = None
    time: int | None = None


class ContextSource(msgspec.Struct, frozen=True, tag=True):
    """The base of all kinds of contexts."""


class LocalContext(ContextSource, frozen=True):
    """An existing directory of the host, by its path as given."""

    path: str


class StdinContext(ContextSource, frozen=True):
    """`-`: an archive, or a Dockerfile alone, on standard input."""


class HTTPContext(ContextSource, frozen=True):
    """An archive, or a Dockerfile alone, at an http(s) URL."""

    url: str


class GitContext(ContextSource, frozen=True):
    """A git repository."""

    ref: GitRef


class ImageContext(ContextSource, frozen=True):
    """`docker-image://REFERENCE`: the reference as given; `scratch` stands for the empty image."""

    reference: str


class LayoutContext(ContextSource, frozen=True):
    """`oci-layout://PATH[:TAG][@DIGEST]`: an OCI layout's directory, and which image of it. `tag` is `latest` by
    default."""

    path: str
    tag: str
    digest: str | None = None


class TargetContext(ContextSource, frozen=True):
    """`target:NAME`: another stage."""

    name: str


Context = LocalContext | StdinContext | HTTPContext | GitContext | ImageContext | LayoutContext | TargetContext


def parse_context(text: str, *, name: str | None = None) -> Context:
    """What `text` names. `name` is given for a named context, and only those may be images, layouts and targets.

    Raises ContextError for an unknown scheme, a malformed value and a directory that does not exist.
    """
    place = f"build context {name}" if name is not None else "build context"
    if not text:
        raise ContextError("it is empty", place=place, remedy="give a directory, a URL or '-'")
    if "\0" in text:
        raise ContextError("it contains a null byte", place=place)
    if text == "-" and name is None:
        return StdinContext()
    if name is None and os.path.isdir(text):
        return LocalContext(text)
    from builder.context.git_url import parse_git_url

    if (ref := parse_git_url(text)) is not None:
        return GitContext(ref)
    if text.startswith(("http://", "https://")):
        return HTTPContext(text)
    if name is not None and (found := _named(text, place)) is not None:
        return found
    if os.path.isdir(text):
        return LocalContext(text)
    scheme = re.match(_SCHEME, text)
    if scheme and not os.path.lexists(text):
        from builder.context.http import redacted

        known = "http, https, git, ssh" + ("" if name is None else ", docker-image, oci-layout")
        if scheme[1] in ("docker-image", "oci-layout"):
            remedy = f"{scheme[1]}:// is for --build-context NAME={text}"
        else:
            remedy = f"known schemes are {known}; anything else is a directory"
        raise ContextError(f"unsupported source {scheme[0]} of {redacted(text)!r}", place=place, remedy=remedy)
    if os.path.lexists(text):
        remedy = "give the directory; a Dockerfile is named with -f"
        raise ContextError(f"{text!r} is not a directory", place=place, remedy=remedy)
    raise ContextError(f"the directory {text!r} does not exist", place=place, remedy=_meant(text))


def _meant(path: str) -> str:
    from difflib import get_close_matches

    folder, name = os.path.split(path.rstrip("/"))
    try:
        close = get_close_matches(name, [entry.name for entry in os.scandir(folder or ".") if entry.is_dir()], 1)
    except OSError:
        close = []
    if close:
        return f"did you mean {os.path.join(folder, close[0])}?"
    return "give a directory, a URL, or - for standard input"


def _named(text: str, place: str) -> Context | None:
    if text.startswith("docker-image://"):
        reference = text.removeprefix("docker-image://")
        if reference != "scratch":
            try:
                parse(reference)
            except InvalidReference as problem:
                raise ContextError(problem.cause, place=place, remedy=problem.remedy) from problem
        return ImageContext(reference)
    if text.startswith("oci-layout://"):
        path, _, digest = text.removeprefix("oci-layout://").partition("@")
        path, _, tag = path.partition(":")
        if not path:
            remedy = "write oci-layout://PATH[:TAG][@DIGEST]"
            raise ContextError(f"{text!r} names no directory", place=place, remedy=remedy)
        if digest and not re.fullmatch(_DIGEST, digest):
            raise ContextError(f"{digest!r} is not a digest", place=place, remedy="a digest is like sha256:<64 digits>")
        return LayoutContext(path, tag or DEFAULT_TAG, digest or None)
    if text.startswith("target:"):
        target = text.removeprefix("target:")
        if not target:
            raise ContextError("'target:' names no stage", place=place)
        return TargetContext(target)
    return None
