"""Working without root: the process becomes root of a user namespace of its own before it starts any thread.

With subordinate ids (`/etc/subuid`, `/etc/subgid`, and the programs newuidmap and newgidmap) the namespace has
some 65,000 users, and everything works as it does for root. Without, it has one user only: files of any other owner
cannot be made, which is an error when it happens.
"""

from __future__ import annotations

import os
import pwd

from builder.errors import Unsupported
from builder.sandbox.syscalls import unshare

_CLONE_NEWUSER = 0x10000000


def become_root() -> None:
    """Enter a user namespace, unless this is root already. Raises Unsupported where the system forbids it."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return
    ranges = (subordinate_ids("/etc/subuid"), subordinate_ids("/etc/subgid"))
    with _Mapper(os.getpid(), uid, gid, ranges) as mapper:
        try:
            unshare(_CLONE_NEWUSER)
        except OSError as error:
            raise Unsupported(
                f"no user namespace can be made: {error.strerror}",
                remedy=_remedy() or "run as root, or allow user namespaces: sysctl user.max_user_namespaces=15000",
            ) from error
        mapper.map()
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        raise _useless(error) from error


def _useless(error: OSError) -> Unsupported:
    """What is said of a user namespace in which nothing is allowed."""
    return Unsupported(f"the user namespace cannot be set up: {error.strerror}", remedy=_remedy() or "run as root")


def _remedy() -> str:
    from builder.sandbox.allowed import setting_to_change

    setting = setting_to_change()
    return f"run as root, or allow user namespaces: sudo {setting}" if setting else ""


def subordinate_ids(path: str) -> tuple[int, int] | None:
    """The first range of ids that `path` (/etc/subuid or /etc/subgid) gives to this user, as (first, count)."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                owner, _, rest = line.strip().partition(":")
                first, _, count = rest.partition(":")
                if owner in (name, str(uid)) and first.isdigit() and count.isdigit():
                    return int(first), int(count)
    except OSError:
        return None
    return None


class _Mapper:
    """A child that stays outside of the namespace and writes the id maps of its parent."""

    def __init__(
        self, pid: int, uid: int, gid: int, ranges: tuple[tuple[int, int] | None, tuple[int, int] | None]
    ) -> None:
        self._pid = pid
        self._uid = uid
        self._gid = gid
        self._ranges = ranges
        self._child = 0
        self._go = -1

    def __enter__(self) -> _Mapper:
        ready, self._go = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._go)
            os._exit(self._work(ready))
        os.close(ready)
        return self

    def __exit__(self, *_: object) -> None:
        if self._child:
            os.close(self._go)
            os.waitpid(self._child, 0)
            self._child = 0

    def map(self) -> None:
        """Have the maps written. Raises Unsupported if that fails."""
        os.write(self._go, b"x")
        os.close(self._go)
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        if status == 0:
            return
        try:  # without the set-uid programs a process may map itself alone
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"0 {self._uid} 1")
            _write("/proc/self/gid_map", f"0 {self._gid} 1")
        except OSError as error:
            raise _useless(error) from error

    def _work(self, ready: int) -> int:
        """In the child: wait for the namespace, then run newuidmap and newgidmap."""
        if not os.read(ready, 1) or None in self._ranges:
            return 1
        for program, own, extra in (
            ("newuidmap", self._uid, self._ranges[0]),
            ("newgidmap", self._gid, self._ranges[1]),
        ):
            assert extra is not None
            arguments = [program, str(self._pid), "0", str(own), "1", "1", str(extra[0]), str(extra[1])]
            try:
                if os.spawnvp(os.P_WAIT, program, arguments) != 0:
                    return 1
            except OSError:
                return 1
        return 0


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
