"""What a registry is asked before a repeated push is answered: whether its tags are what was pushed.

A registry takes a manifest only when it has all that it refers to (distribution-spec 1.1, "Pushing Manifests"), and
whoever pushes asks for the tag first; if it is the image, nothing is to be sent.

Standard library only, see the package.
"""

from __future__ import annotations

import _socket  # `socket` without its modules, which would take a third of the time of the whole answer
import time

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE = 1.0
"""Seconds for an answer, once the name is resolved. Then the whole way is gone, which waits longer, and says why."""
_LARGEST = 65_536  # bytes of an answer's head


def held(host: str, target: str, media_type: str, digest: str) -> bytes:
    """A manifest that a registry has, for `has_manifests`: `host[:port]`, which is asked by plain HTTP, the target of
    the request, `/v2/NAME/manifests/TAG`, and what is to be found there."""
    return " ".join((host, target, media_type, digest)).encode()


def has_manifests(noted: Sequence[bytes]) -> bool:
    """Whether all that `held` made of what was pushed is still so. False where it cannot be told: nothing but a
    plain answer of 200 counts. Raises OSError, and ValueError for what is damaged."""
    return bool(noted) and all(map(_has, noted))


def _has(noted: bytes) -> bool:
    host, target, media_type, digest = noted.decode().split(" ")
    request = (
        f"HEAD {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {media_type}\r\nAccept-Encoding: identity\r\n"
        "User-Agent: builder\r\nConnection: close\r\n\r\n"
    )
    status, *fields = _head(host, request.encode()).decode("latin-1").split("\r\n")
    version, code, *_ = status.split(" ")
    found = dict(_field(line) for line in fields)
    return version.startswith("HTTP/1.") and code == "200" and found.get("docker-content-digest") == digest


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


def _head(host: str, request: bytes) -> bytes:
    """The head of a server's answer to a request. Raises OSError, and ValueError for no answer of HTTP."""
    deadline = time.monotonic() + _PATIENCE
    connection = _connect(host, deadline)
    try:
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            connection.settimeout(_left(deadline))
            piece = connection.recv(4096)
            data += piece
            if not piece or len(data) > _LARGEST:
                raise ValueError("no answer")
        return data.partition(b"\r\n\r\n")[0]
    finally:
        connection.close()


def _connect(host: str, deadline: float) -> _socket.socket:
    """A connection to `host[:port]`, at the first of its addresses that answers. Raises OSError."""
    name, _, port = host.rpartition(":") if ":" in host and not host.endswith("]") else (host, "", "80")
    named = name.strip("[]").encode("ascii")  # as text it would take modules for international names
    error = OSError("no address")
    for family, kind, protocol, _, address in _socket.getaddrinfo(named, port, 0, _socket.SOCK_STREAM):
        connection = _socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left(deadline))
            connection.connect(address)
            return connection
        except OSError as failure:
            connection.close()
            error = failure
    raise error


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)  # 0 would mean not to wait at all
