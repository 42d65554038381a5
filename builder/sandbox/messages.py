"""Messages between the helper's processes: bytes and descriptors over Unix sockets, without the `socket` module."""

from __future__ import annotations

import _socket
import marshal
import os
import sys

from .command import Command

_SIZE = 4  # bytes of a descriptor in a message

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


def write_command(command: Command) -> int:
    """A descriptor of a file in memory that holds a command, for the process that becomes it."""
    descriptor = os.memfd_create("command", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        marshal.dump(command.pack(), file)
    return descriptor


def read_command(descriptor: int) -> Command:
    """The command in such a file, which is closed."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return Command.unpack(marshal.load(file))


def describe(error: BaseException) -> str:
    """An error as the text of a `Result`."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
