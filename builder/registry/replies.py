"""What registries answer: read whole, or piece by piece."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec

from builder.context.bodies import TooSlow, Undecodable, decoded, paced
from builder.errors import RegistryError
from builder.registry.failures import Transient

if TYPE_CHECKING:
    import httpx

    from builder.registry.clients import Patience

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
        self,
        response: httpx.Response,
        origin: str,
        explain_errors: Callable[[], AbstractContextManager[None]],
        patience: Patience,
    ) -> None:
        self._response = response
        self._patience = patience
        self._explain_errors = explain_errors
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.challenges = response.headers.get_list("www-authenticate")
        self.origin = origin

    def chunks(self) -> Iterator[bytes]:
        """The body, in pieces of at most 64 KiB or so. Raises Transient when the connection breaks or stalls, or next
        to nothing comes."""
        try:
            yield from decoded(paced(self._raw(), self._patience.read), self.headers.get("content-encoding", ""))
        except TooSlow as error:
            raise Transient(f"{self.origin} is too slow: {error}") from error
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
        """The whole body. Raises RegistryError when it is larger than MAX_REPLY, Transient when it takes longer than
        all attempts may take together."""
        parts, size = [], 0
        deadline = time.monotonic() + self._patience.budget
        for chunk in self.chunks():
            if time.monotonic() > deadline:
                raise Transient(f"{self.origin} did not finish its answer within {self._patience.budget:.0f} s")
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_REPLY:
                raise RegistryError(f"{self.origin} answered with more than {MAX_REPLY >> 20} MiB where that is absurd")
        return Reply(self.status, self.headers, b"".join(parts), self.origin)
