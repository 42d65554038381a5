"""Do the blobs hold what their names say? Each is read once: what layers become uncompressed is found out with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from builder.oci.digests import is_hex
from builder.store.check_layers import Content, HashedFile, layer_blobs, uncompressed
from builder.store.check_session import DAMAGE, LEFTOVER, Session


def check_blobs(session: Session) -> None:
    """Hash every blob. One that is damaged must not keep its name: nobody would fetch or make it again."""
    directory = session.path("blobs", "sha256")
    names = sorted(_names(directory))
    blobs: list[tuple[str, os.stat_result]] = []
    for name in names:
        path = os.path.join(directory, name)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue  # a collection took it
        if not is_hex(name, 64) or not stat.S_ISREG(status.st_mode):
            repair = session.quarantine(path) if session.depth.repair else ""
            session.found("blob", path, "this is no blob", repair=repair)
        else:
            blobs.append((path, status))
    total = sum(status.st_size for _, status in blobs)
    done = 0
    lock = Lock()
    layers = layer_blobs(session)

    def look(blob: tuple[str, os.stat_result]) -> None:
        nonlocal done

        def advance(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                session.progress("blobs", done, total)

        path, status = blob
        digest = f"sha256:{os.path.basename(path)}"
        cause, content = _read(session, path, digest in layers, advance)
        with lock:
            if cause:
                _damaged(session, path, status, cause)
            elif content is not None:
                session.contents[digest] = content

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as workers:
        for _ in workers.map(look, blobs):
            pass
    session.counts["blobs"] = len(blobs)
    session.counts["bytes"] = total
    session.counts["layers"] = len(session.contents)
    _other_algorithms(session)


def _names(directory: str) -> Iterator[str]:
    try:
        yield from os.listdir(directory)
    except FileNotFoundError:
        return


def _read(session: Session, path: str, layer: bool, advance: Callable[[int], None]) -> tuple[str, Content | None]:
    """What is wrong with a blob, '' if nothing is; and what one that stands for a layer holds."""
    digest = f"sha256:{os.path.basename(path)}"
    content = None
    try:
        with open(path, "rb", buffering=0) as file:
            blob = HashedFile(file, advance)
            if layer:
                content = uncompressed(blob, digest, session.limits)
            found = blob.finish()
    except FileNotFoundError:
        return "", None
    except OSError as error:
        return f"it cannot be read: {error.strerror}", None
    return ("", content) if found == digest else (f"its content is {found}", None)


def _damaged(session: Session, path: str, status: os.stat_result, cause: str) -> None:
    digest = f"sha256:{os.path.basename(path)}"
    session.damaged.add(digest)
    record = session.fetchable(digest)
    unsettled = digest in session.unsettled
    repair = ""
    if session.depth.repair:
        try:
            current = os.lstat(path)
        except FileNotFoundError:
            return
        if (current.st_ino, current.st_ctime_ns) != (status.st_ino, status.st_ctime_ns):
            session.damaged.discard(digest)  # somebody has put another in its place meanwhile
            return
        if record is not None:
            os.unlink(path)
            repair = f"removed; {record.origin.removeprefix('cache:')} has it"
        elif unsettled:
            os.unlink(path)
            repair = "removed; it is made again when it is needed"
        else:
            repair = session.quarantine(path)
    size = next((one.size for one in session.records if one.digest == digest), status.st_size)  # damage is rare
    if size != status.st_size:
        cause += f", {status.st_size} bytes of {size}"
    if unsettled:
        cause += "; the machine stopped before it was on the disk"
    session.found("blob", digest, cause, severity=LEFTOVER if unsettled else DAMAGE, repair=repair)


def _other_algorithms(session: Session) -> None:
    """Blobs of other digests than SHA-256, which another tool may have put here, are neither used nor checked."""
    for name in _names(session.path("blobs")):
        if name != "sha256":
            session.found(
                "blob", session.path("blobs", name), "digests other than sha256 are not used", severity=LEFTOVER
            )
