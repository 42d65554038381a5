"""Landlock, which needs no privilege: a command that reaches none of the processes around it.

It can signal and trace none of them, where it has no PID namespace of its own, and connect to no abstract Unix socket
of theirs, which belong to the network: over one, two commands could pass each other descriptors of their roots. Of
files nothing is said: what Landlock allows for a directory holds for all below it, so that it cannot make one directory
read-only inside of another that can be written to.
"""

from __future__ import annotations

import ctypes

from . import syscalls

_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
_SCOPE_SIGNAL = 1 << 1
_KNOWS_SCOPES = 6  # the version of the interface, of Linux 6.12


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def is_able() -> bool:
    """Whether this kernel can keep signals and abstract sockets in."""
    try:
        return syscalls.landlock_create_ruleset(None, 0, _VERSION) >= _KNOWS_SCOPES
    except OSError:  # not built in, not switched on, or forbidden by a filter
        return False


def make_ruleset() -> int:
    """A descriptor of what `confine` takes, as often as one likes. Needs `is_able`."""
    rules = _Ruleset(0, 0, _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL)
    return syscalls.landlock_create_ruleset(ctypes.byref(rules), ctypes.sizeof(rules), 0)


def confine(ruleset: int) -> None:
    """Let this process, and all that it becomes and starts, reach nobody else: each call sets those who come after it
    apart from all others. Needs no_new_privs or CAP_SYS_ADMIN."""
    syscalls.landlock_restrict_self(ruleset)
