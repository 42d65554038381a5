"""A build context that comes as a tar archive, plain or compressed, from standard input or a URL.

The archive is unpacked into a private directory and then read as any local context. Whoever made it is not trusted:
every entry is created relative to the descriptor of its directory, which is reached one component after the other
without following links, so that no name, link or replaced directory leads out of the target.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import BinaryIO, NoReturn, cast

import msgspec

from builder.config import ArchiveLimits
from builder.errors import ContextError, LayerError
from builder.filesystem import kinds
from builder.filesystem.archive import ArchiveEntry, TarReader, pieces
from builder.filesystem.decompress import decompressor, sniff
from builder.filesystem.descriptor import Directory, open_directory
from builder.filesystem.syscalls import remove_tree

HEAD_SIZE = 1024
_BLOCK = 512
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unpacked(msgspec.Struct, frozen=True):
    """What came out of an archive: the `owners` of files that are not 0:0 (for LocalTree), the number of `entries`, and
    the newest time of a regular file in seconds (None without files), which SOURCE_DATE_EPOCH=context asks for."""

    owners: dict[str, tuple[int, int]]
    entries: int
    newest: int | None


def is_archive(head: bytes) -> bool:
    """Whether the data that starts with `head` (HEAD_SIZE bytes, or all there is) is an archive.

    As in BuildKit compressed data is taken for one; a plain one is recognised by its first header's checksum.
    """
    if sniff(head) != "uncompressed":
        return True
    block = head[:_BLOCK]
    if len(block) < _BLOCK:
        return False
    if not any(block):
        return True  # an empty archive starts with its end
    try:
        recorded = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return recorded == sum(block) - sum(block[148:156]) + 8 * 0x20


def peek(stream: BinaryIO) -> tuple[bytes, BinaryIO]:
    """The first HEAD_SIZE bytes of a stream (fewer if it ends before), and a stream that yields everything."""
    head = b""
    while len(head) < HEAD_SIZE and (more := stream.read(HEAD_SIZE - len(head))):
        head += more
    return head, cast(BinaryIO, io.BufferedReader(_Replayed(head, stream)))


class _Replayed(io.RawIOBase):
    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._head[: len(buffer)]
        if data:
            self._head = self._head[len(data) :]
        else:
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def unpack(
    stream: BinaryIO,
    into: str,
    *,
    name: str = "context archive",
    limits: ArchiveLimits | None = None,
) -> Unpacked:
    """Unpack an archive, compressed in whatever way, into the empty directory `into`.

    Names are taken relative to it; `.` and leading slashes are dropped, `..` is refused. A later entry replaces an
    earlier one of the same name. Links are kept as they are and never followed. Owners are returned, not set; extended
    attributes are dropped. Raises ContextError, naming the entry; what
    was unpacked until then stays for the caller to remove.
    """
    try:
        unpacker = _Unpacker(into, name)
        limits = limits or ArchiveLimits()
        chunks = pieces(decompressor(stream, limits=limits))
        reader = TarReader(chunks, max_entries=limits.entries or None, strict_names=True)
        for entry in reader:
            unpacker.add(entry)
        reader.drain()  # or whoever writes to us would find the pipe closed
        unpacker.finish()
    except LayerError as problem:
        remedy = problem.remedy or "is it complete, and a tar archive?"
        raise ContextError(f"the archive cannot be read: {problem}", place=name, remedy=remedy) from problem
    except OSError as problem:
        raise ContextError(f"cannot unpack: {(problem.strerror or str(problem)).lower()}", place=name) from problem
    return Unpacked(unpacker.owners, reader.entries, unpacker.newest)


class _Unpacker:
    """The state of one unpacking: the directory in use and what must be done at the end."""

    def __init__(self, into: str, name: str) -> None:
        self.name = name
        self.owners: dict[str, tuple[int, int]] = {}
        self.newest: int | None = None
        self._root = open_directory(into)
        self._last: tuple[tuple[str, ...], Directory] = ((), self._root)
        self._directories: dict[str, tuple[int, int]] = {}
        self._known: dict[str, set[str]] = {}  # of each directory, names at or below which owners or modes are kept

    def add(self, entry: ArchiveEntry) -> None:
        """Create one entry, instead of what is there."""
        if not entry.path:
            return
        info, path = entry.info, tuple(entry.path.split("/"))
        parent, name = self._directory(path[:-1], entry.path), path[-1]
        if info.kind == kinds.DIRECTORY:
            self._make_directory(parent, name)
            self._directories[entry.path] = (info.mode, info.mtime_ns)
            self._keep(entry.path)
        else:
            self._remove(parent, path)
            self._create(entry, parent, name)
            if info.kind != kinds.SYMLINK:
                os.chmod(name, info.mode, dir_fd=parent.fd)  # not a link: it was created now, in a private directory
            os.utime(name, ns=(info.mtime_ns, info.mtime_ns), dir_fd=parent.fd, follow_symlinks=False)
        self._own(entry.path, entry)
        if entry.hardlink is not None:
            # the header of a hard link speaks for the file: its target gets the same owner, as it got the same mode
            self._own(entry.hardlink, entry)
        if info.kind == kinds.FILE:
            self.newest = max(self.newest or 0, info.mtime_ns // 1_000_000_000)

    def finish(self) -> None:
        """Set the modes and times of directories, the deepest first: setting them earlier would not last."""
        for path, (mode, mtime) in sorted(self._directories.items(), key=lambda item: -item[0].count("/")):
            try:
                above, _, name = path.rpartition("/")
                parent = self._root.below(above.split("/")) if above else self._root
                directory = os.open(name, _OPEN_DIRECTORY, dir_fd=parent.fd)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced by a later entry
            try:
                os.utime(directory, ns=(mtime, mtime))
                os.chmod(directory, mode)
            finally:
                os.close(directory)

    def _create(self, entry: ArchiveEntry, parent: Directory, name: str) -> None:
        info = entry.info
        if entry.hardlink is not None:
            self._link(entry, entry.hardlink, parent, name)
        elif info.kind == kinds.FILE:
            with open(os.open(name, _CREATE, 0o600, dir_fd=parent.fd), "wb", buffering=0) as file:
                for chunk in entry.content.chunks():
                    while chunk:
                        chunk = chunk[file.write(chunk) :]
        elif info.kind == kinds.SYMLINK:
            if not info.link:
                self._refuse(entry.path, "a symbolic link to nothing")
            os.symlink(info.link, name, dir_fd=parent.fd)
        elif info.kind == kinds.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent.fd)
        else:
            kind = stat.S_IFCHR if info.kind == kinds.CHARACTER else stat.S_IFBLK
            try:
                os.mknod(name, kind | 0o600, os.makedev(*info.device), dir_fd=parent.fd)
            except PermissionError:
                self._refuse(entry.path, "a device, which only root may create")

    def _link(self, entry: ArchiveEntry, target: str, parent: Directory, name: str) -> None:
        directory, _, base = target.rpartition("/")
        try:
            source = self._root.below(directory.split("/")) if directory else self._root
            status = os.stat(base or ".", dir_fd=source.fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):  # its mode could not be set without following it
                self._refuse(entry.path, "a hard link to a symbolic link")
            if stat.S_ISDIR(status.st_mode):
                self._refuse(entry.path, "a hard link to a directory")
            os.link(base, name, src_dir_fd=source.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            self._refuse(entry.path, f"a hard link to {target!r}, which the archive does not hold before it")

    def _directory(self, path: tuple[str, ...], entry: str) -> Directory:
        """A directory in the target, made if it is missing."""
        if self._last[0] == path:
            return self._last[1]
        current = self._root
        for name in path:
            self._make_directory(current, name, keep=True)
            try:
                current = current.below((name,))
            except NotADirectoryError:
                self._refuse(entry, f"it lies below {name!r}, which is no directory")
        self._last = (path, current)
        return current

    def _make_directory(self, parent: Directory, name: str, *, keep: bool = False) -> None:
        """Make a directory, in the place of a file unless `keep`."""
        try:
            os.mkdir(name, 0o755, dir_fd=parent.fd)
        except FileExistsError:
            if not keep and not stat.S_ISDIR(os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent.fd)
                os.mkdir(name, 0o755, dir_fd=parent.fd)

    def _remove(self, parent: Directory, path: tuple[str, ...]) -> None:
        try:
            os.unlink(path[-1], dir_fd=parent.fd)
        except FileNotFoundError:
            return
        except OSError as problem:
            if problem.errno not in (errno.EISDIR, errno.EPERM):
                raise
            remove_tree(path[-1], dir_fd=parent.fd)
            self._last = ((), self._root)
            self._forget("/".join(path))

    def _keep(self, path: str) -> None:
        """Let what is known of a path be found from the directories above it."""
        while path:
            path, _, name = path.rpartition("/")
            names = self._known.setdefault(path, set())
            if name in names:
                return
            names.add(name)

    def _forget(self, path: str) -> None:
        """Forget what is known of a path and of all below it."""
        waiting = [path]
        while waiting:
            path = waiting.pop()
            self.owners.pop(path, None)
            self._directories.pop(path, None)
            waiting += [f"{path}/{name}" for name in self._known.pop(path, ())]

    def _own(self, path: str, entry: ArchiveEntry) -> None:
        if entry.info.uid or entry.info.gid:
            self.owners[path] = (entry.info.uid, entry.info.gid)
            self._keep(path)
        else:
            self.owners.pop(path, None)

    def _refuse(self, entry: str, cause: str) -> NoReturn:
        raise ContextError(f"{cause}: {entry!r}", place=self.name)
