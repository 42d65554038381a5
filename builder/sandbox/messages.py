"""Messages between the helper's processes: bytes and descriptors over Unix sockets, without the `socket` module."""

from __future__ import annotations

import _socket
import marshal
import os
import sys

from .command import Command, SandboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIZE = 4  # bytes of a descriptor in a message
_LONGEST_REPORT = 1000  # characters, of four bytes at most: a pipe holds 4096 bytes, whatever the system's settings

COMMAND, FORESEEN = b"r", b"f"
"""Kinds of messages to a process that becomes a command: the command and its streams; one that may come later."""
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


def write_value(value: tuple[Any, ...]) -> int:
    """A descriptor of a file in memory that holds what marshal can write, as large as it is."""
    descriptor = os.memfd_create("value", os.MFD_CLOEXEC)
    data = memoryview(marshal.dumps(value))
    while data:
        data = data[os.write(descriptor, data) :]
    return descriptor


def read_value(descriptor: int) -> tuple[Any, ...]:
    """What such a file holds; it is closed."""
    try:
        value: tuple[Any, ...] = marshal.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    finally:
        os.close(descriptor)
    return value


def write_command(command: Command) -> int:
    """A descriptor of a file in memory that holds a command, for the process that becomes it."""
    return write_value(command.pack())


def read_command(descriptor: int) -> Command:
    """The command in such a file, which is closed."""
    return Command.unpack(read_value(descriptor))


def describe(error: BaseException) -> str:
    """An error as the text of a `Result`."""
    if not isinstance(error, (SandboxError, OSError)):  # a defect
        return f"unexpected {type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def report(text: str) -> bytes:
    """What a process says of itself to one that reads it only afterwards: short enough for every pipe and socket, so
    that writing it waits for nobody. Of a text that is longer the middle is left out."""
    if len(text) > _LONGEST_REPORT:
        half = _LONGEST_REPORT // 2
        text = f"{text[:half]} … {text[-half:]}"
    return text.encode(errors="surrogateescape")
