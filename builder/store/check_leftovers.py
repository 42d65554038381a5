"""What lies around: unfinished files, dead leases, records of builds that cannot be read, half-kept failed steps,
half-made cache mounts."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from builder.filesystem.locks import exclusive
from builder.oci.digests import is_hex
from builder.store.builds import Build
from builder.store.check_session import LEFTOVER, Session
from builder.store.failed import FailedStates
from builder.store.locks import take_share
from builder.store.mounts import is_name
from builder.store.store import remove_tree


def check_temporary(session: Session) -> None:
    """Whatever is in tmp/ when nobody else uses the store belongs to processes that were killed."""
    directory = session.path("tmp")
    names: list[str] = []
    try:
        if session.depth.repair:
            share, names = take_share(directory)
            os.close(share)
        else:
            with _free(directory, fcntl.LOCK_EX) as free:
                names = os.listdir(directory) if free else []
    except OSError:
        return
    for name in names:
        path = os.path.join(directory, name)
        if session.depth.repair:
            remove_tree(path)
        _leftover(session, "temporary", path)
    for name in _names(session.path("partial")):
        _check_partial(session, name)


def _check_partial(session: Session, name: str) -> None:
    """A beginning of a blob is worth something as long as the blob is not here."""
    path = session.path("partial", name)
    if not is_hex(name, 64):
        if session.depth.repair:
            remove_tree(path) if os.path.isdir(path) else os.unlink(path)
    elif not session.layout.has(f"sha256:{name}"):
        return
    elif session.depth.repair:
        with exclusive(session.path("tmp", f"fetch-{name}.lock")), suppress(FileNotFoundError):  # see Layers
            os.unlink(path)
    _leftover(session, "temporary", path)


def _leftover(session: Session, area: str, path: str) -> None:
    repair = "removed" if session.depth.repair else ""
    session.found(area, path, "a killed process left it", severity=LEFTOVER, repair=repair)


@contextmanager
def _free(path: str, lock: int) -> Iterator[bool]:
    """Hold a lock on a file or directory if it is here and nobody else's excludes that. Yields whether it is held."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _lock(descriptor, path, lock)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str, lock: int) -> bool:
    try:
        fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        return os.path.samestat(os.stat(path), os.fstat(descriptor))  # it may have been removed before it was locked
    except (BlockingIOError, FileNotFoundError):
        return False


def _is_free(path: str, lock: int) -> bool:
    with _free(path, lock) as free:
        return free


def check_leases(session: Session) -> None:
    """A lease that nobody holds any more keeps nothing: its owner was killed."""
    directory = session.path("leases")
    leases = [os.path.join(directory, name) for name in _names(directory) if name != "gate"]
    dead = [path for path in leases if _is_free(path, fcntl.LOCK_SH)]
    if session.depth.repair and dead:
        with session.no_collection():
            pass  # it removes them
    for path in dead:
        _leftover(session, "lease", path)


def check_builds(session: Session) -> None:
    """The records of past builds can be read."""
    decoder = msgspec.json.Decoder(Build)
    names = [name for name in _names(session.path("builds")) if name.endswith(".json")]
    session.counts["builds"] = len(names)
    for name in names:
        path = session.path("builds", name)
        try:
            with open(path, "rb") as file:
                decoder.decode(file.read())
        except FileNotFoundError:
            continue
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            repair = session.quarantine(path) if session.depth.repair else ""
            session.found("build", path, f"the record cannot be read: {error}", repair=repair)


def check_failed(session: Session) -> None:
    """Failed steps that are kept for `debug` have their state and files; one that somebody looks at is left alone."""
    states = FailedStates(session.root, session.path("tmp"))
    names = states.names()
    session.counts["failed"] = len(names)
    for name in names:
        if not states.is_whole(name):
            repair = "removed" if session.depth.repair and states.remove([name]).count else ""
            cause = "of this failed step not everything was kept"
            session.found("failed", os.path.join(states.path, name), cause, severity=LEFTOVER, repair=repair)
    for name in _names(states.path):
        if name not in names:
            path = os.path.join(states.path, name)
            repair = session.quarantine(path) if session.depth.repair else ""
            session.found("failed", path, "this is no kept step", repair=repair)


def check_mounts(session: Session) -> None:
    """Cache mounts have the form that steps expect; what is in them is the steps' own business."""
    directory = session.path("mounts")
    names = _names(directory)
    session.counts["mounts"] = len(names)
    for name in names:
        path = os.path.join(directory, name)
        data = os.path.join(path, "data")
        if not is_name(name) or not os.path.isdir(path) or (os.path.lexists(data) and not os.path.isdir(data)):
            repair = session.quarantine(path) if session.depth.repair else ""
            session.found("mount", path, "this is no cache mount", repair=repair)
        else:
            _check_mount(session, path)


def _check_mount(session: Session, path: str) -> None:
    """Of a mount that no step has, not even a shared one: what is half-made belongs to nobody."""
    with _free(os.path.join(path, "lock"), fcntl.LOCK_EX) as free:
        for inner in sorted(os.listdir(path)) if free else ():
            if inner == "data.new" or inner.startswith("id."):
                if session.depth.repair:
                    remove_tree(os.path.join(path, inner))
                _leftover(session, "mount", os.path.join(path, inner))


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
