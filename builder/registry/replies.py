"""What registries answer: read whole, or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec

from builder.context.bodies import Undecodable, decoded
from builder.errors import RegistryError

if TYPE_CHECKING:
    import httpx

MAX_REPLY = 8 << 20  # bytes of a manifest, a configuration or an error that are read into memory


class Reply(msgspec.Struct, frozen=True):
    """An answer that was read whole. Header names are lower case; `origin` is the server that gave it in the end."""

    status: int
    headers: dict[str, str]
    body: bytes
    origin: str


class Stream:
    """An answer whose body is still to be read, once, by `chunks`."""

    def __init__(
        self, response: httpx.Response, origin: str, explain_errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._response = response
        self._explain_errors = explain_errors
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.challenges = response.headers.get_list("www-authenticate")
        self.origin = origin

    def chunks(self) -> Iterator[bytes]:
        """The body, in pieces of at most 64 KiB or so. Raises Transient when the connection breaks or stalls."""
        try:
            yield from decoded(self._raw(), self.headers.get("content-encoding", ""))
        except Undecodable as error:
            raise RegistryError(f"{self.origin} sent a body that cannot be decoded: {error}") from error

    def _raw(self) -> Iterator[bytes]:
        iterator = self._response.iter_raw()
        while True:
            with self._explain_errors():
                chunk = next(iterator, None)
            if chunk is None:
                return
            yield chunk

    def read(self) -> Reply:
        """The whole body. Raises RegistryError when it is larger than MAX_REPLY."""
        parts, size = [], 0
        for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_REPLY:
                raise RegistryError(f"{self.origin} answered with more than {MAX_REPLY >> 20} MiB where that is absurd")
        return Reply(self.status, self.headers, b"".join(parts), self.origin)
