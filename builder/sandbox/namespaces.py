"""Namespaces of a step, and what this process is allowed to do with them."""

from __future__ import annotations

import _socket
import fcntl
import os

from . import capabilities, syscalls
from .command import SandboxError

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_INITIAL = 0xEFFFFFFD  # Linux, include/linux/proc_ns.h, PROC_USER_INIT_INO


def check_privilege() -> None:
    """Refuse at once where no step can run: making mounts takes CAP_SYS_ADMIN, be it in a user namespace."""
    if not capabilities.has(capabilities.SYS_ADMIN):
        who = "this container lacks CAP_SYS_ADMIN" if os.geteuid() == 0 else "this user is not root"
        raise SandboxError(f"running a command needs root: {who}, so that namespaces and mounts cannot be made")


def in_user_namespace() -> bool:
    """Whether uid 0 here is somebody else outside: device nodes and `trusted.` attributes are then out of reach."""
    return os.stat("/proc/self/ns/user").st_ino != _INITIAL  # its map of ids may be that of the initial one, too


def enter_pid_namespace(socket: _socket.socket) -> int:
    """Go on as process 1 of a new PID namespace, of which a descriptor is returned: the kernel empties it when this
    process ends. The old process only waits for that; `socket` is closed there."""
    syscalls.unshare(syscalls.CLONE_NEWPID)
    child = os.fork()
    if child:
        socket.close()  # the client must see it close when the child ends
        os.waitpid(child, 0)
        os._exit(0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    return os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)


def fork_into_pid_namespace(own: int) -> int:
    """Like fork(), but the child is process 1 of a new PID namespace; `own` is a descriptor of this process's own.

    unshare(2) works only once until the namespace for children is set back, hence the setns(2).
    """
    syscalls.unshare(syscalls.CLONE_NEWPID)
    try:
        child = os.fork()
    except BaseException:
        syscalls.setns(own, syscalls.CLONE_NEWPID)
        raise
    if child:
        syscalls.setns(own, syscalls.CLONE_NEWPID)
    return child


def isolate(network: str) -> None:
    """New namespaces for everything but PIDs (which takes a fork) and users; mounts no longer reach the host."""
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWCGROUP
    if network == "none":
        flags |= syscalls.CLONE_NEWNET
    syscalls.unshare(flags)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE, what="make all mounts private")
    if network == "none":
        _start_loopback()


def _start_loopback() -> None:
    """Set the new network namespace's `lo` up; it gets its addresses by that."""
    request = b"lo".ljust(16, b"\0") + _IFF_UP.to_bytes(2, "little") + bytes(22)
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, request)
    finally:
        control.close()
