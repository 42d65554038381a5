"""The terminal of one command: a pair of its own, from the devpts instance of its own root, as under runc.

The caller gets the master's end; the command has the other end as its standard streams, its controlling terminal and
/dev/console. It never holds a descriptor of the caller's terminal, into which it could push input (TIOCSTI).
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys

from . import syscalls
from .messages import send_descriptors
from .rootfs import Root, attach
from .syscalls import MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID

# The same on x86-64 and 64-bit ARM (asm-generic/ioctls.h); the `termios` module is not worth its import.
TIOCSCTTY, TIOCGWINSZ, TIOCSWINSZ = 0x540E, 0x5413, 0x5414
_TIOCSPTLCK, _TIOCGPTPEER, _TIOCGPTN = 0x40045431, 0x5441, 0x80045430


def open_terminal(root: Root, size: tuple[int, int], owner: int, client: int) -> int:
    """Make a pair, send the master over the socket `client`, show the other end as /dev/console, and return it."""
    master = syscalls.open_in_root(root.descriptor, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, bytes(4))
    set_size(master, size)
    # By the pair itself: a mount that the command asked for may hide the name.
    terminal = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    os.fchown(terminal, owner, -1)
    socket = _socket.socket(fileno=client)
    send_descriptors(socket, b"t", [master])
    socket.close()
    number = int.from_bytes(fcntl.ioctl(master, _TIOCGPTN, bytes(4)), sys.byteorder)
    os.close(master)
    _show_console(root, number)
    return terminal


def control(terminal: int) -> None:
    """Make it the controlling terminal of this process, which leads a session without one."""
    fcntl.ioctl(terminal, TIOCSCTTY, 0)


def set_size(terminal: int, size: tuple[int, int]) -> None:
    """Set the window's rows and columns."""
    rows, columns = (value.to_bytes(2, sys.byteorder) for value in size)
    fcntl.ioctl(terminal, TIOCSWINSZ, rows + columns + bytes(4))


def get_size(terminal: int) -> tuple[int, int]:
    """The window's rows and columns; zeros where they are not known. Raises OSError for what is no terminal."""
    data = fcntl.ioctl(terminal, TIOCGWINSZ, bytes(8))
    return int.from_bytes(data[:2], sys.byteorder), int.from_bytes(data[2:4], sys.byteorder)


def _show_console(root: Root, number: int) -> None:
    directory = syscalls.open_in_root(root.descriptor, "/dev", os.O_PATH | os.O_DIRECTORY)
    try:
        point = os.open("console", os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600, dir_fd=directory)
        source = syscalls.open_in_root(root.descriptor, f"/dev/pts/{number}")
    except FileExistsError:
        return  # a mount that the command asked for is there
    finally:
        os.close(directory)
    attach(source, point, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "mount /dev/console")
    os.close(source)
    os.close(point)
