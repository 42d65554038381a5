"""Pinning the images that a Dockerfile names to the digests that their registries serve now.

Only the names are changed: comments, layout, line ends and here-documents stay as they are, byte for byte. A pin is
`NAME:TAG@DIGEST`, with the digest of the index where there is one, so that it serves every platform.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress

import msgspec

from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.lines import decode
from builder.dockerfile.references import ImageUse, find_images
from builder.errors import BuilderError, ContextError, DockerfileError, RegistryError
from builder.oci import reference as references
from builder.oci.reference import Reference
from builder.plan.stages import context_key

_AT_ONCE = 8


class Pin(msgspec.Struct, frozen=True):
    """One place that names an image.

    `pinned` is the digest that stands there ('' without), `current` the one that the tag has now ('' where nobody was
    asked: the name cannot be replaced, or has no tag beside its digest).
    """

    use: ImageUse
    pinned: str = ""
    current: str = ""

    @property
    def outdated(self) -> bool:
        return bool(self.pinned and self.current) and self.pinned != self.current

    @property
    def replacement(self) -> str:
        """The name with the digest of now."""
        name = self.use.name.partition("@")[0]
        if not references.parse(name, default_tag=False).tag:
            name += f":{references.DEFAULT_TAG}"
        return f"{name}@{self.current}"


class Pinning(msgspec.Struct, frozen=True):
    """A Dockerfile's pins, in the order of its text."""

    name: str
    text: bytes
    pins: tuple[Pin, ...]

    @property
    def outdated(self) -> tuple[Pin, ...]:
        return tuple(pin for pin in self.pins if pin.outdated)

    def changes(self, *, update: bool) -> tuple[Pin, ...]:
        """What is to be replaced: names without a digest, and with `update` outdated pins as well."""
        return tuple(pin for pin in self.pins if pin.current and (not pin.pinned or (update and pin.outdated)))

    def rewritten(self, *, update: bool = False) -> bytes:
        """The text with `changes` made. Raises DockerfileError if it would not read the same otherwise."""
        changes = self.changes(update=update)
        if not changes:
            return self.text
        text = decode(self.text)
        for pin in reversed(changes):
            assert pin.use.span is not None
            start, end = pin.use.span
            text = text[:start] + pin.replacement + text[end:]
        made = text.encode("utf-8", "surrogateescape")
        _verify(self, made, changes)
        return made


def find_pins(text: bytes, name: str, look_up: Callable[[Reference], str], contexts: Iterable[str] = ()) -> Pinning:
    """The pins of a Dockerfile called `name`. `look_up` gives the digest that a tag has now; it is called in threads,
    once for each image. What `contexts` name is no image. Raises DockerfileError; RegistryError that tells of all
    images that cannot be looked up."""
    named = {context_key(context) for context in contexts}
    uses = [_left_if_context(use, named) for use in find_images(decode(text), _parse(text, name))]
    wanted = {use: found for use in uses if (found := _followed(use, name)) is not None}
    current = _look_up_all(wanted, look_up, name)
    pins = []
    for use in uses:
        digest = use.name.partition("@")[2]
        pins.append(Pin(use, digest, current.get(wanted[use], "") if use in wanted else ""))
    return Pinning(name, text, tuple(pins))


def _left_if_context(use: ImageUse, named: Set[str]) -> ImageUse:
    """A name as it is, or, if it is a named context, as one that cannot be replaced."""
    with suppress(BuilderError):
        if use.name and context_key(use.name) in named:
            return msgspec.structs.replace(use, span=None, obstacle="it is a named context")
    return use


def _parse(text: bytes, name: str) -> Dockerfile:
    from builder.dockerfile.parser import parse

    return parse(text, name)


def _followed(use: ImageUse, name: str) -> Reference | None:
    """The tag that a pin follows; None where there is none, or the name cannot be replaced."""
    if use.obstacle:
        return None
    try:
        found = references.parse(use.name)
    except BuilderError as error:
        error.place = f"{name}:{use.line}"
        raise
    return msgspec.structs.replace(found, digest=None) if found.tag else None


def _look_up_all(
    wanted: dict[ImageUse, Reference], look_up: Callable[[Reference], str], name: str
) -> dict[Reference, str]:
    from concurrent.futures import ThreadPoolExecutor

    first = {found: use for use, found in reversed(wanted.items())}
    errors: list[BuilderError] = []
    digests: dict[Reference, str] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = [(found, pool.submit(look_up, found)) for found in sorted(first)]
        for found, future in asked:
            try:
                digests[found] = future.result()
            except BuilderError as error:
                error.place = f"{name}:{first[found].line}" + (f": {error.place}" if error.place else "")
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise RegistryError(
            f"{len(errors)} images cannot be looked up; nothing was changed",
            details=tuple(f"    {error}" for error in errors),
            remedy=next((error.remedy for error in errors if error.remedy), None),
        )
    return digests


def _verify(pinning: Pinning, made: bytes, changes: Sequence[Pin]) -> None:
    """Read the new text twice before anybody gets it: our parser must find the same images but for the pins, and
    dockerfile-parse, which knows nothing of ours, the same instructions on the same lines."""
    found = find_images(decode(made), _parse(made, pinning.name))
    expected = [pin.replacement if pin in changes else pin.use.written for pin in pinning.pins]
    if [use.written for use in found] == expected and _reads_alike(pinning.text, made, changes):
        return
    raise DockerfileError(
        "the Dockerfile would not read the same with its images pinned; nothing was changed",
        place=pinning.name,
        remedy="pin it by hand",
    )


def _reads_alike(before: bytes, after: bytes, changes: Sequence[Pin]) -> bool:
    """Whether dockerfile-parse sees a difference in nothing but the instructions that name what was changed."""
    from dockerfile_parse import DockerfileParser
    from dockerfile_parse.parser import image_from

    old, new = (
        DockerfileParser(fileobj=io.BytesIO(text.decode("utf-8", "replace").encode())).structure
        for text in (before, after)
    )
    if len(old) != len(new):
        return False
    for one, other in zip(old, new, strict=True):
        if one["startline"] != other["startline"] or one["endline"] != other["endline"]:
            return False
        inside = [pin for pin in changes if one["startline"] < pin.use.line <= one["endline"] + 1]
        if not inside and one["content"] != other["content"]:
            return False
        if one["instruction"] == "FROM" and len(inside) == 1:
            (pin,) = inside
            if image_from(one["value"])[0] == pin.use.written and image_from(other["value"])[0] != pin.replacement:
                return False
    return True


def replace_file(path: str, before: bytes, after: bytes) -> None:
    """Put `after` in the place of `before`, at once or not at all, with the file's mode and, where that is allowed, its
    owner. A link stays, and the file that it leads to changes. Raises ContextError."""
    target = os.path.realpath(path)
    temporary = f"{target}.{os.getpid()}.part"
    try:
        with open(target, "rb") as file:
            if file.read() != before:
                raise ContextError("was changed meanwhile; nothing was written", place=path, remedy="run it again")
            info = os.fstat(file.fileno())
        try:
            with open(temporary, "xb") as file:
                os.fchmod(file.fileno(), info.st_mode & 0o7777)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), info.st_uid, info.st_gid)
                file.write(after)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    except OSError as error:
        raise ContextError(f"cannot be written: {error.strerror}", place=path) from error
