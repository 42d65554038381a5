"""System calls that the `os` module lacks in Python 3.11, through ctypes.

Each function raises `OSError` with the kernel's number and a name that says what was tried, so that a failed set-up can
be reported as "mount overlay on /: Invalid argument". Needs Linux 5.12 (`mount_setattr`) on x86-64 or 64-bit ARM.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_STRICTATIME = 0x1000000

MNT_DETACH = 2

AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8

FSPICK_CLOEXEC = 1
FSPICK_EMPTY_PATH = 8
FSCONFIG_SET_FLAG = 0
FSCONFIG_CMD_RECONFIGURE = 7

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2

SECCOMP_SET_MODE_FILTER = 1
KEYCTL_JOIN_SESSION_KEYRING = 1

# Numbers from 424 on are the same everywhere (Linux, Documentation/process/adding-syscalls.rst).
_COMMON = {"open_tree": 428, "move_mount": 429, "fsconfig": 431, "fspick": 433, "close_range": 436, "openat2": 437,
    "mount_setattr": 442, "landlock_create_ruleset": 444, "landlock_restrict_self": 446,
}  # fmt: skip
_NUMBERS = {
    "x86_64": {"pivot_root": 155, "capset": 126, "seccomp": 317, "keyctl": 250, **_COMMON},
    "aarch64": {"pivot_root": 41, "capset": 91, "seccomp": 277, "keyctl": 219, **_COMMON},
}

MACHINE = os.uname().machine
_HERE = _NUMBERS.get(MACHINE, {}) if sys.maxsize > 2**32 else {}

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _call(name: str, what: str, *arguments: object) -> int:
    """A system call by its name. A step makes a hundred, so its arguments are few: Python's integers go as C's `int`,
    sign-extended, which serves for all but addresses."""
    number = _HERE.get(name)
    if number is None:
        raise OSError(38, "this processor is not supported by the sandbox (x86-64 and 64-bit ARM are)", what)
    result: int = _syscall(number, *arguments)
    return result if result >= 0 else _check(result, what)


def _word(value: int) -> ctypes.c_ulong:
    return ctypes.c_ulong(value & 0xFFFF_FFFF_FFFF_FFFF)


def mount(source: str, target: str, filesystem: str, flags: int = 0, options: str = "", what: str = "") -> None:
    """mount(2); `what` names it in an error, since `target` often is a descriptor's path."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), filesystem.encode() or None, _word(flags), options.encode() or None
    )
    _check(result, what or f"mount {filesystem or source} on {target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _call("pivot_root", "pivot_root", os.fsencode(new_root), os.fsencode(put_old))


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), f"unshare namespaces {flags:#x}")


def setns(descriptor: int, kind: int) -> None:
    """setns(2)."""
    _check(_libc.setns(descriptor, kind), "setns")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, len(encoded)), f"sethostname {name}")


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` with the directory `root` as the root of everything, links included: openat2(RESOLVE_IN_ROOT).

    Nothing outside can be reached whatever the path or the links say; /proc's magic links are refused (ELOOP).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    relative = os.fsencode(path).lstrip(b"/") or b"."
    while True:
        try:
            return _call("openat2", f"open {path}", root, relative, ctypes.byref(how), ctypes.sizeof(how))
        except BlockingIOError:
            continue  # a rename somewhere raced with "..": the manual page says to try again


def open_tree(source: int, *, recursive: bool = False, what: str = "") -> int:
    """A detached copy of the mount of `source` with it as its root: a bind mount that is nowhere yet."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    return _call("open_tree", what or "open_tree", source, b"", flags)


def move_mount(tree: int, target: int, what: str = "") -> None:
    """Attach a detached mount onto what the descriptor `target` refers to."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _call("move_mount", what or "move_mount", tree, b"", target, b"", flags)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def set_mount_attributes(tree: int, attributes: int, *, recursive: bool = False, what: str = "") -> None:
    """mount_setattr(2): set MOUNT_ATTR_* on a mount, and with `recursive` on all mounts below it."""
    value = _MountAttributes(attributes, 0, 0, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _call("mount_setattr", what or "mount_setattr", tree, b"", flags, ctypes.byref(value), ctypes.sizeof(value))


def make_read_only(mount: int) -> None:
    """Let nobody write to a mounted file system any more, by whatever descriptor: `mount` is one of the mount itself.
    EBUSY if a file is open for writing."""
    what = "make a file system read-only"
    context = _call("fspick", what, mount, b"", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH)
    try:
        _call("fsconfig", what, context, FSCONFIG_SET_FLAG, b"ro", None, 0)
        _call("fsconfig", what, context, FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    finally:
        os.close(context)


def read_only_copy(program: int) -> int:
    """A detached read-only mount of an executable, to run it from.

    /proc/self/exe of a process that is about to become the command is the host's interpreter; an image whose program
    is a link to it could otherwise overwrite that file, or give it another mode (CVE-2019-5736).
    """
    tree = open_tree(program, what="clone the mount of the interpreter")
    set_mount_attributes(tree, MOUNT_ATTR_RDONLY, what="make the interpreter read-only")
    return tree


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    """prctl(2) with up to two arguments."""
    if _libc.prctl(option, first, second, 0, 0) < 0:
        _check(-1, f"prctl {option}")


def has_no_new_privileges() -> bool:
    """Whether this process can gain no rights by what it executes."""
    return bool(_libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread, version 3; each argument is a bit mask of capabilities."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    low = (effective & 0xFFFF_FFFF, permitted & 0xFFFF_FFFF, inheritable & 0xFFFF_FFFF)
    data = (ctypes.c_uint32 * 6)(*low, effective >> 32, permitted >> 32, inheritable >> 32)
    _call("capset", "capset", ctypes.byref(header), ctypes.byref(data))


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install_filter(program: bytes) -> None:
    """seccomp(2): filter the system calls of this thread from now on; needs CAP_SYS_ADMIN or no_new_privs."""
    value = _FilterProgram(len(program) // 8, program)
    _call("seccomp", "seccomp", SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(value))


def join_session_keyring(name: str) -> None:
    """Leave the inherited session keyring for a new one."""
    _call("keyctl", "join a new session keyring", KEYCTL_JOIN_SESSION_KEYRING, name.encode())


def landlock_create_ruleset(attributes: object, size: int, flags: int) -> int:
    """landlock_create_ruleset(2)."""
    return _call("landlock_create_ruleset", "Landlock", attributes, size, flags)


def landlock_restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2)."""
    _call("landlock_restrict_self", "Landlock", ruleset, 0)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2), both ends included."""
    _call("close_range", "close_range", first, last, flags)


def default_signal(number: int) -> None:
    """Give a signal its default action; the `signal` module would load `enum`."""
    _libc.signal(number, None)
