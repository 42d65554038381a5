"""What lies around: unfinished files, dead leases, records of builds that cannot be read, half-made cache mounts."""

from __future__ import annotations

import fcntl
import os

import msgspec

from builder.store.builds import Build
from builder.store.check_session import LEFTOVER, Session
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
        elif _is_alone(directory):
            names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        path = os.path.join(directory, name)
        if session.depth.repair:
            remove_tree(path)
        _leftover(session, "temporary", path)
    for name in _names(session.path("partial")):
        if len(name) != 64:
            path = session.path("partial", name)
            if session.depth.repair:
                os.unlink(path)
            _leftover(session, "temporary", path)


def _leftover(session: Session, area: str, path: str) -> None:
    repair = "removed" if session.depth.repair else ""
    session.found(area, path, "a killed process left it", severity=LEFTOVER, repair=repair)


def _is_alone(directory: str) -> bool:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def check_leases(session: Session) -> None:
    """A lease that nobody holds any more keeps nothing: its owner was killed."""
    directory = session.path("leases")
    dead = [path for name in _names(directory) if name != "gate" and _is_free(path := os.path.join(directory, name))]
    if session.depth.repair and dead:
        with session.no_collection():
            pass  # it removes them
    for path in dead:
        _leftover(session, "lease", path)


def _is_free(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


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
        elif _is_free(os.path.join(path, "lock")):
            for inner in os.listdir(path):
                if inner == "data.new" or inner.startswith("id."):
                    if session.depth.repair:
                        remove_tree(os.path.join(path, inner))
                    _leftover(session, "mount", os.path.join(path, inner))


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
