"""Landlock, which needs no privilege: a command that can signal and trace none of the processes around it.

For where it has no PID namespace of its own. Of files nothing is said: what Landlock allows for a directory holds for
all below it, so that it cannot make one directory read-only inside of another that can be written to.
"""

from __future__ import annotations

import ctypes
import os

from . import syscalls

_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_SCOPE_SIGNAL = 1 << 1
_KNOWS_SIGNALS = 6  # the version of the interface, of Linux 6.12


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def is_able() -> bool:
    """Whether this kernel can keep signals in."""
    try:
        return syscalls.landlock_create_ruleset(None, 0, _VERSION) >= _KNOWS_SIGNALS
    except OSError:  # not built in, not switched on, or forbidden by a filter
        return False


def confine() -> None:
    """Let this process, and all that it becomes and starts, signal and trace nobody else. Needs no_new_privs or
    CAP_SYS_ADMIN, and `is_able`."""
    rules = _Ruleset(0, 0, _SCOPE_SIGNAL)
    descriptor = syscalls.landlock_create_ruleset(ctypes.byref(rules), ctypes.sizeof(rules), 0)
    try:
        syscalls.landlock_restrict_self(descriptor)
    finally:
        os.close(descriptor)
