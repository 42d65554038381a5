"""Keeps the values of secrets out of what a build leaves behind.

A build knows the bytes of each `--secret` and of each key of `--ssh`. Whatever becomes part of an image is searched for
them before it is committed: file names, links, attributes and contents while a layer is written, the configuration,
the history, annotations. A step that would write one fails. What a step prints is masked before anybody sees or keeps
it.

Searched for are the value itself (without white space around it), its base64 in all three alignments and both
alphabets, and its URL encodings. Of a long value's base64 two pieces from its middle are searched for, since encoders
break lines. Not found is what was compressed, encrypted or cut into pieces. Values that might stand anywhere by chance
are not searched for: those of less than SHORTEST bytes, and of less than SHORTEST_WORDS if they are letters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec

from builder.errors import BuilderError, StepFailed
from builder.filesystem.tar import TarWriter
from builder.filesystem.tree import FileInfo

SHORTEST = 8
SHORTEST_WORDS = 12
MASK = b"***"

_LONG = 64  # characters of base64 that encoders commonly put on a line
_PIECE = 32
_SHORTEST_BASE64 = 8


class SecretLeak(StepFailed):
    """The value of a secret would become part of the image."""


class Form(msgspec.Struct, frozen=True):
    """Bytes that give a secret away: whose (`secret 'npm'`), and in which encoding ('' for the value itself)."""

    data: bytes
    secret: str
    encoding: str = ""

    def __str__(self) -> str:
        return f"{self.secret} ({self.encoding})" if self.encoding else self.secret


class Guard:
    """Knows the secrets of one build. `sources` reads each by what people call it; what cannot be read is left to the
    step that needs it. They are read when something is searched for the first time."""

    def __init__(self, sources: Mapping[str, Callable[[], bytes]]) -> None:
        self._sources = sources

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """What is searched for, the longest first."""
        found: dict[bytes, Form] = {}
        for secret, read in self._sources.items():
            try:
                value = read().strip()
            except BuilderError:
                continue
            if is_searchable(value):
                for data, encoding in encodings(value):
                    found.setdefault(data, Form(data, secret, encoding))
        return tuple(sorted(found.values(), key=lambda form: -len(form.data)))

    @cached_property
    def longest(self) -> int:
        return len(self.forms[0].data) if self.forms else 0

    def find(self, data: bytes) -> Form | None:
        """The first form of a secret that is in `data`."""
        for form in self.forms:
            if form.data in data:
                return form
        return None

    def mask(self, data: bytes) -> bytes:
        for form in self.forms:
            data = data.replace(form.data, MASK)
        return data

    def mask_text(self, text: str) -> str:
        data = _bytes(text)
        return text if self.find(data) is None else self.mask(data).decode("utf-8", "surrogateescape")

    def redact(self, error: BaseException) -> None:
        """Mask the texts of an error that is about to be shown."""
        if isinstance(error, BuilderError):
            error.cause = self.mask_text(error.cause)
            error.place = error.place and self.mask_text(error.place)
            error.remedy = error.remedy and self.mask_text(error.remedy)
            error.details = tuple(map(self.mask_text, error.details))
            error.args = (error.cause,)

    def check(self, value: Any, place: str) -> None:
        """Search texts, and all that are in mappings and sequences. Raises SecretLeak naming the `place`."""
        if isinstance(value, str):
            form = self.find(_bytes(value))
            if form is not None:
                raise leak(form, self.mask_text(place))
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                self.check(str(key), f"a key of {place}")
                self.check(inner, f"{place}.{key}")
        elif isinstance(value, Iterable) and not isinstance(value, bytes):
            for inner in value:
                self.check(inner, place)

    def writer(self, write: Callable[[bytes], object]) -> TarWriter:
        """A writer of layers that raises SecretLeak, naming the file, as soon as a secret is written."""
        return _SearchingWriter(self, write)

    def masking(self) -> Masking:
        """Masks what one step prints."""
        return Masking(self)


class Masking:
    """Masks streams that come in pieces: the beginning of what may be a secret is held back until the next piece."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._held: dict[int, bytes] = {}

    def feed(self, stream: int, data: bytes) -> bytes:
        """What of a stream may be shown by now."""
        data = self._guard.mask(self._held.pop(stream, b"") + data)
        held = self._beginning(data)
        if held:
            self._held[stream] = data[-held:]
            return data[:-held]
        return data

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """What was held back, at the end of all streams."""
        yield from self._held.items()
        self._held = {}

    def _beginning(self, data: bytes) -> int:
        """How many bytes at the end begin a secret."""
        most = 0
        for form in self._guard.forms:
            first = form.data[:1]
            start = data.find(first, max(0, len(data) - len(form.data) + 1))
            while start >= 0 and len(data) - start > most:
                if form.data.startswith(data[start:]):
                    most = len(data) - start
                    break
                start = data.find(first, start + 1)
        return most


class _SearchingWriter(TarWriter):
    """Searches each entry: names and attributes at once, the content as it is written, also where pieces meet."""

    def __init__(self, guard: Guard, write: Callable[[bytes], object]) -> None:
        super().__init__(self._search)
        self._guard = guard
        self._pass_on = write
        self._path = ""
        self._end = b""

    def add(self, path: str, info: FileInfo, **fields: Any) -> None:
        self._path, self._end = path, b""
        for text in (path, info.link, fields.get("hardlink") or ""):
            self._refuse(self._guard.find(_bytes(text)), "the name or link")
        for name, value in fields.get("xattrs", {}).items():
            self._refuse(self._guard.find(_bytes(name) + b"\0" + value), "an extended attribute")
        super().add(path, info, **fields)

    def _search(self, data: bytes) -> None:
        overlap = self._guard.longest - 1
        if overlap > 0:
            found = self._guard.find(data)
            if found is None and self._end:
                found = self._guard.find(self._end + data[:overlap])
            self._refuse(found, "the content")
            self._end = data[-overlap:] if len(data) >= overlap else (self._end + data)[-overlap:]
        self._pass_on(data)

    def _refuse(self, form: Form | None, part: str) -> None:
        if form is not None:
            raise leak(form, f"{part} of /{self._guard.mask_text(self._path)}")


def leak(form: Form, place: str) -> SecretLeak:
    return SecretLeak(
        f"the value of {form} would be in the image: {place}",
        remedy="let nothing write it down or copy it; what may be in the image is no secret: use a bind mount for it",
    )


def is_searchable(value: bytes) -> bool:
    """Whether a value is long enough to be found nowhere by chance."""
    words = value.translate(None, b" \t\r\n").isalpha()
    return len(value) >= (SHORTEST_WORDS if words else SHORTEST)


def encodings(value: bytes) -> Iterator[tuple[bytes, str]]:
    """The bytes that a value becomes, each with the encoding's name."""
    from base64 import b64encode
    from urllib.parse import quote, quote_plus

    yield value, ""
    for before in range(3):
        # What stands before the value and behind it decides the characters that it shares with them.
        encoded = b64encode(bytes(before) + value)[(0, 2, 3)[before] :]
        whole = encoded[: (8 * (before + len(value)) // 6) - (0, 2, 3)[before]]
        for text in {whole, whole.translate(bytes.maketrans(b"+/", b"-_"))}:
            if len(text) > _LONG:
                middle = len(text) // 2
                yield text[middle - _PIECE : middle], "base64"
                yield text[middle : middle + _PIECE], "base64"
            elif len(text) >= _SHORTEST_BASE64:
                yield text, "base64"
    for quoted in (quote(value, safe=""), quote(value), quote_plus(value)):
        yield quoted.encode(), "URL-encoded"
        yield _lower_escapes(quoted).encode(), "URL-encoded"


def _lower_escapes(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return head + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
