"""Trying out, in a child process, what a RUN step needs: only that tells what this machine really allows."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from builder.errors import BuilderError
from builder.sandbox import namespaces, syscalls
from builder.store.store import remove_tree

USER_NAMESPACE, NAMESPACES, PROC, STORE, OVERLAY = "user namespace", "namespaces", "proc", "store", "overlay"
"""What is tried, in this order; what comes after a failure is not."""

_NEW = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)


class Probed(msgspec.Struct, frozen=True):
    """`failed` is what did not work ('' if all did), `cause` why; `identifiers` how many users the namespace has."""

    failed: str = ""
    cause: str = ""
    identifiers: int = 0


def probe(directory: str, become_root: Callable[[], object]) -> Probed:
    """Do what a step's set-up does: become root, make namespaces, mount /proc, and an overlay on the file system of
    `directory`, which must be there. `become_root` raises BuilderError where that is impossible."""
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answers)
        try:
            os.write(answer, msgspec.json.encode(_try(directory, become_root)))
        finally:
            os._exit(0)
    os.close(answer)
    with open(answers, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return msgspec.json.decode(data, type=Probed) if data else Probed(NAMESPACES, "the trial ended unexpectedly")


def _try(directory: str, become_root: Callable[[], object]) -> Probed:
    stage = USER_NAMESPACE
    try:
        become_root()
        count = _identifiers()
        stage = NAMESPACES
        syscalls.unshare(_NEW)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE, what="make all mounts private")
        stage = STORE
        place = os.path.join(directory, f".builder-doctor.{os.getpid()}.{os.urandom(4).hex()}")
        os.mkdir(place, 0o700)
        try:
            stage = PROC
            _mount_proc(place)
            stage = OVERLAY
            _mount_overlay(place)
        finally:
            remove_tree(place)
    except BuilderError as error:
        return Probed(stage, error.cause)
    except OSError as error:
        return Probed(stage, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
    return Probed(identifiers=count)


def _identifiers() -> int:
    """How many user ids this process's namespace has."""
    with open("/proc/self/uid_map") as file:
        return sum(int(line.split()[2]) for line in file)


def _mount_proc(place: str) -> None:
    """Mount /proc as the first process of a new PID namespace, which the next fork makes. Raises OSError."""
    child = os.fork()
    if child == 0:
        status = 0
        try:
            point = os.path.join(place, "proc")
            os.mkdir(point)
            syscalls.mount("proc", point, "proc")
            syscalls.umount(point)
        except OSError as error:
            status = error.errno or 1
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, os.strerror(status), "mount /proc")


def _mount_overlay(place: str) -> None:
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(os.path.join(place, name))
    own = "userxattr" if namespaces.in_user_namespace() else "redirect_dir=off,metacopy=off"
    options = f"lowerdir=lower,upperdir=upper,workdir=work,volatile,index=off,{own}"
    os.chdir(place)
    try:
        syscalls.mount("overlay", "merged", "overlay", 0, options, "mount an overlay")
        syscalls.umount("merged")
    finally:
        os.chdir("/")
