"""Messages between the helper's processes: bytes and descriptors over Unix sockets, without the `socket` module."""

from __future__ import annotations

import _socket
import sys

_SIZE = 4  # bytes of a descriptor in a message
_LENGTH = 8

STREAMS = 3
"""Descriptors that a command may come with: its standard output and error, and either its standard input or a socket on
which the caller waits for its terminal."""


def send_descriptors(socket: _socket.socket, data: bytes, descriptors: list[int]) -> None:
    """Send `data` (not empty) with descriptors. Raises OSError if nobody is there any more."""
    payload = b"".join(descriptor.to_bytes(_SIZE, sys.byteorder) for descriptor in descriptors)
    socket.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, payload)])


def receive_descriptors(socket: _socket.socket, most: int, count: int) -> tuple[bytes, list[int]]:
    """At most `most` bytes and `count` descriptors; nothing of either if the other end is closed."""
    data, ancillary, _, _ = socket.recvmsg(most, _socket.CMSG_SPACE(count * _SIZE))
    descriptors = [
        int.from_bytes(payload[start : start + _SIZE], sys.byteorder)
        for level, kind, payload in ancillary
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS
        for start in range(0, len(payload), _SIZE)
    ]
    return data, descriptors


def receive_body(socket: _socket.socket) -> bytes | None:
    """What `frame` made; None if the other end is closed before that is complete."""
    head = _exactly(socket, _LENGTH)
    return None if head is None else _exactly(socket, int.from_bytes(head, "little"))


def frame(body: bytes) -> bytes:
    """A body with its length before it."""
    return len(body).to_bytes(_LENGTH, "little") + body


def _exactly(socket: _socket.socket, length: int) -> bytes | None:
    parts = []
    while length:
        part = socket.recv(min(length, 1 << 20))
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def describe(error: BaseException) -> str:
    """An error as the text of a `Result`."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
