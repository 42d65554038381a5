"""Keeps the values of secrets out of what a build leaves behind.

A build knows the bytes of each `--secret` and of each key of `--ssh`. Whatever becomes part of an image is searched for
them before it is committed: file names, links, attributes and contents while a layer is written, the configuration,
the history, annotations. A step that would write one fails. So does one that prints one, which nobody sees: output is
masked (`secret_output`). `secret_forms` says what is searched for; `secret_search` searches what a build says before
it runs anything, and the layers that the step cache holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from builder.errors import BuilderError, StepFailed
from builder.filesystem.tar import TarWriter
from builder.filesystem.tree import FileInfo
from builder.progress import Event, StepOutput, Transfer
from builder.solver.secret_forms import Form, dense_encodings, encodings, is_searchable

MASK = b"***"
IMAGE = "the image"
"""Where a secret would be, in an error."""

Record = TypeVar("Record", bound=msgspec.Struct)


class SecretLeak(StepFailed):
    """The value of a secret would become part of the image, or was printed."""


class Guard:
    """Knows the secrets of one build. `sources` reads each by what people call it; what cannot be read is left to the
    step that needs it. They are read when something is searched for the first time. `may_print` says whether a step
    that prints one is let through, its output masked; it is asked when one does."""

    def __init__(
        self, sources: Mapping[str, Callable[[], bytes]], may_print: Callable[[], bool] = lambda: False
    ) -> None:
        self._sources = sources
        self.may_print = may_print

    @cached_property
    def _values(self) -> dict[str, bytes]:
        found = {}
        for secret, read in self._sources.items():
            try:
                found[secret] = read().strip()
            except BuilderError:
                continue
        return found

    @cached_property
    def searched(self) -> tuple[str, ...]:
        """The secrets that are searched for."""
        return tuple(secret for secret, value in self._values.items() if is_searchable(value))

    @cached_property
    def unsearched(self) -> tuple[str, ...]:
        """The secrets that are not, because their values are too short to mean anything where they are found."""
        return tuple(secret for secret, value in self._values.items() if value and not is_searchable(value))

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """What is searched for, the longest first."""
        return self._forms(encodings)

    @cached_property
    def spread(self) -> tuple[Form, ...]:
        """What a log may have spread over lines, with all white space left out, the longest first."""
        return self._forms(dense_encodings)

    def _forms(self, encode: Callable[[bytes], Iterator[tuple[bytes, str]]]) -> tuple[Form, ...]:
        found: dict[bytes, Form] = {}
        for secret in self.searched:
            for data, encoding in encode(self._values[secret]):
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
        """Long base64 as a whole first: of it only pieces are searched for, and the rest would stay."""
        for form in (*self.spread, *self.forms):
            data = data.replace(form.data, MASK)
        return data

    def mask_text(self, text: str) -> str:
        data = _bytes(text)
        return text if self.find(data) is None else self.mask(data).decode("utf-8", "surrogateescape")

    def mask_record(self, record: Record) -> Record:
        """The same record with all of its texts masked."""
        plain = msgspec.to_builtins(record)
        masked = self._mask_all(plain)
        return record if masked == plain else msgspec.convert(masked, type(record))

    def mask_event(self, event: Event) -> Event:
        """The same event with all of its texts masked. The output of steps is already; transfers tell what the plan
        was searched for, many times."""
        return event if isinstance(event, (StepOutput, Transfer)) else self.mask_record(event)

    def _mask_all(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.mask_text(value)
        if isinstance(value, Mapping):
            return {self._mask_all(key): self._mask_all(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._mask_all(inner) for inner in value]
        return value

    def redact(self, error: BaseException) -> None:
        """Mask the texts of an error that is about to be shown, and of those that it follows from: `--debug` shows
        them, too."""
        seen: set[int] = set()
        following: BaseException | None = error
        while following is not None and id(following) not in seen:
            seen.add(id(following))
            if isinstance(following, BuilderError):
                following.cause = self.mask_text(following.cause)
                following.place = following.place and self.mask_text(following.place)
                following.remedy = following.remedy and self.mask_text(following.remedy)
                following.details = tuple(map(self.mask_text, following.details))
            following.args = tuple(self.mask_text(one) if isinstance(one, str) else one for one in following.args)
            following = following.__cause__ or following.__context__

    def check(self, value: Any, place: str, where: str = IMAGE) -> None:
        """Search texts, and all that are in mappings and sequences. Raises SecretLeak naming the `place`."""
        if isinstance(value, str):
            form = self.find(_bytes(value))
            if form is not None:
                raise leak(form, self.mask_text(place), where)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                self.check(str(key), f"a key of {place}", where)
                self.check(inner, f"{place}.{key}", where)
        elif isinstance(value, Iterable) and not isinstance(value, bytes):
            for inner in value:
                self.check(inner, place, where)

    def writer(self, write: Callable[[bytes], object], where: str = IMAGE) -> TarWriter:
        """A writer of layers that raises SecretLeak, naming the file, as soon as a secret is written."""
        return _SearchingWriter(self, write, where)

    def check_kept(self, state: bytes, upper: str) -> None:
        """Search what is to be kept of a step that failed: its state, and the directory with what it wrote ('' for
        none). Raises SecretLeak."""
        where = "what is kept of the failed step"
        form = self.find(state)
        if form is not None:
            raise leak(form, "its state", where)
        if upper:
            from builder.filesystem.diff import changes, write_changes

            write_changes(changes(upper, None), self.writer(lambda data: None, where))

    def search(self) -> Search:
        """Searches one stream."""
        return Search(self)


class Search:
    """Searches a stream that comes in pieces, also where two of them meet."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._overlap = max(0, guard.longest - 1)
        self._end = b""

    def feed(self, data: bytes) -> Form | None:
        """The first form of a secret that is known to be in the stream by now, and was not before."""
        overlap = self._overlap
        if not overlap:
            return None
        found = self._guard.find(data)
        if found is None and self._end:
            found = self._guard.find(self._end + data[:overlap])
        self._end = data[-overlap:] if len(data) >= overlap else (self._end + data)[-overlap:]
        return found

    def restart(self) -> None:
        """What comes next does not belong to what came."""
        self._end = b""


class _SearchingWriter(TarWriter):
    """Searches each entry: names and attributes at once, the content as it is written, also where pieces meet."""

    def __init__(self, guard: Guard, write: Callable[[bytes], object], where: str) -> None:
        super().__init__(self._search)
        self._where = where
        self._guard = guard
        self._content = guard.search()
        self._pass_on = write
        self._path = ""

    def add(self, path: str, info: FileInfo, **fields: Any) -> None:
        self._path = path
        self._content.restart()
        for text in (path, info.link, fields.get("hardlink") or ""):
            self._refuse(self._guard.find(_bytes(text)), "the name or link")
        for name, value in fields.get("xattrs", {}).items():
            self._refuse(self._guard.find(_bytes(name) + b"\0" + value), "an extended attribute")
        super().add(path, info, **fields)

    def _search(self, data: bytes) -> None:
        self._refuse(self._content.feed(data), "the content")
        self._pass_on(data)

    def _refuse(self, form: Form | None, part: str) -> None:
        if form is not None:
            raise leak(form, f"{part} of /{self._guard.mask_text(self._path)}", self._where)


def leak(form: Form, place: str, where: str = IMAGE) -> SecretLeak:
    return SecretLeak(
        f"the value of {form} would be in {where}: {place}",
        remedy="let nothing write it down or copy it; what may be in the image is no secret: use a bind mount for it",
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
