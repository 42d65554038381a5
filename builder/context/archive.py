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
from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn, cast

import msgspec

from builder.context.descriptor import Directory, open_directory
from builder.errors import ContextError

if TYPE_CHECKING:
    import tarfile

Compression = Literal["none", "gzip", "bzip2", "xz", "zstd"]
HEAD_SIZE = 1024
_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_BLOCK = 512
_CHUNK = 1 << 20
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unpacked(msgspec.Struct, frozen=True):
    """What came out of an archive: the `owners` of files that are not 0:0 (for LocalTree), the number of `entries`, and
    the newest time of a regular file in seconds (None without files), which SOURCE_DATE_EPOCH=context asks for."""

    owners: dict[str, tuple[int, int]]
    entries: int
    newest: int | None


def is_archive(head: bytes) -> Compression | None:
    """How the data that starts with `head` (HEAD_SIZE bytes, or all there is) is compressed if it is an archive.

    As in BuildKit compressed data is taken for an archive; a plain one is recognised by its first header's checksum.
    """
    for magic, compression in _MAGIC:
        if head.startswith(magic):
            return compression
    block = head[:_BLOCK]
    if len(block) < _BLOCK:
        return None
    if not any(block):
        return "none"  # an empty archive starts with its end
    try:
        recorded = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return None
    return "none" if recorded == sum(block) - sum(block[148:156]) + 8 * 0x20 else None


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
    compression: Compression,
    *,
    name: str = "context archive",
    max_size: int = 1 << 40,
    max_entries: int = 10_000_000,
) -> Unpacked:
    """Unpack an archive into the empty directory `into`.

    Names are taken relative to it; `.` and leading slashes are dropped, `..` is refused. A later entry replaces an
    earlier one of the same name. Links are kept as they are and never followed. Owners are returned, not set; extended
    attributes are dropped. `max_size` limits the sum of all files in bytes. Raises ContextError, naming the entry; what
    was unpacked until then stays for the caller to remove.
    """
    import tarfile

    class Header(tarfile.TarInfo):
        """The library takes a damaged header after the first one for the end of the archive; it is an error here."""

        @classmethod
        def fromtarfile(cls, archive: tarfile.TarFile) -> Header:
            try:
                return super().fromtarfile(archive)
            except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as problem:  # type: ignore[attr-defined]
                raise tarfile.ReadError(f"damaged header: {problem}") from None

    try:
        unpacker = _Unpacker(into, name, max_size)
        reader = _Reader(_decompressed(stream, compression))
        with tarfile.open(fileobj=cast(BinaryIO, reader), mode="r|", tarinfo=Header) as archive:
            for entry in archive:
                unpacker.entries += 1
                if unpacker.entries > max_entries:
                    raise ContextError(f"more than {max_entries} entries", place=name)
                unpacker.add(archive, entry)
                archive.members = []  # type: ignore[attr-defined]  # the library would keep every header
        unpacker.finish()
    except (tarfile.TarError, _Damaged, ValueError, OverflowError) as problem:
        remedy = "is it complete, and a tar archive?"
        raise ContextError(f"the archive cannot be read: {problem}", place=name, remedy=remedy) from problem
    except OSError as problem:
        raise ContextError(f"cannot unpack: {(problem.strerror or str(problem)).lower()}", place=name) from problem
    return Unpacked(unpacker.owners, unpacker.entries, unpacker.newest)


class _Damaged(Exception):
    """The compressed data is not what it claims to be."""


class _Reader(io.RawIOBase):
    """Maps what decompressors raise (each its own, some OSError) to _Damaged, apart from errors of the disk."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        try:
            return self._source.read(size)
        except MemoryError:
            raise
        except Exception as problem:
            raise _Damaged(str(problem) or type(problem).__name__) from problem


def _decompressed(stream: BinaryIO, compression: Compression) -> BinaryIO:
    if compression == "gzip":
        from isal import igzip

        return cast(BinaryIO, igzip.IGzipFile(fileobj=stream, mode="rb"))  # type: ignore[no-untyped-call]
    if compression == "bzip2":
        import bz2

        return cast(BinaryIO, bz2.BZ2File(stream, "rb"))
    if compression == "xz":
        import lzma

        return cast(BinaryIO, lzma.LZMAFile(stream, "rb"))
    if compression == "zstd":
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)  # what zstd accepts without --long
        return cast(BinaryIO, decompressor.stream_reader(stream, read_across_frames=True))
    return stream


class _Unpacker:
    """The state of one unpacking: the directory in use and what must be done at the end."""

    def __init__(self, into: str, name: str, room: int) -> None:
        self.name = name
        self.room = room
        self.owners: dict[str, tuple[int, int]] = {}
        self.entries = 0
        self.newest: int | None = None
        self._root = open_directory(into)
        self._last: tuple[tuple[str, ...], Directory] = ((), self._root)
        self._directories: dict[tuple[str, ...], tuple[int, int]] = {}

    def add(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        """Create one entry, instead of what is there."""
        path = self._components(entry.name, entry.name)
        if not path:
            return
        mode, mtime = entry.mode & 0o7777, _mtime_ns(entry)
        parent, name = self._directory(path[:-1], entry.name), path[-1]
        if entry.isdir():
            self._make_directory(parent, name)
            self._directories[path] = (mode, mtime)
        else:
            self._remove(parent, path)
            self._create(archive, entry, parent, name)
            if not entry.issym():
                os.chmod(name, mode, dir_fd=parent.fd)  # not a link: it was created just now, in a private directory
            os.utime(name, ns=(mtime, mtime), dir_fd=parent.fd, follow_symlinks=False)
        self._own("/".join(path), entry)
        if entry.islnk():
            # the header of a hard link speaks for the file: its target gets the same owner, as it got the same mode
            self._own("/".join(self._components(entry.linkname, entry.name)), entry)
        if entry.isreg():
            self.newest = max(self.newest or 0, mtime // 1_000_000_000)

    def finish(self) -> None:
        """Set the modes and times of directories, the deepest first: setting them earlier would not last."""
        for path, (mode, mtime) in sorted(self._directories.items(), key=lambda item: -len(item[0])):
            try:
                parent = self._root.below(path[:-1])
                directory = os.open(path[-1], _OPEN_DIRECTORY, dir_fd=parent.fd)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced by a later entry
            try:
                os.utime(directory, ns=(mtime, mtime))
                os.chmod(directory, mode)
            finally:
                os.close(directory)

    def _create(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, parent: Directory, name: str) -> None:
        if entry.isreg():
            self._write(archive, entry, os.open(name, _CREATE, 0o600, dir_fd=parent.fd))
        elif entry.issym():
            if not entry.linkname:
                self._refuse(entry.name, "a symbolic link to nothing")
            os.symlink(entry.linkname, name, dir_fd=parent.fd)
        elif entry.islnk():
            self._link(entry, parent, name)
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent.fd)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            try:
                os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent.fd)
            except PermissionError:
                self._refuse(entry.name, "a device, which only root may create")
        else:
            self._refuse(entry.name, f"an entry of unknown type {entry.type!r}")

    def _write(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, descriptor: int) -> None:
        with open(descriptor, "wb", buffering=0) as file:
            if entry.size < 0:
                self._refuse(entry.name, "a negative size")
            self.room -= entry.size
            if self.room < 0:
                self._refuse(entry.name, "the archive's files are larger than allowed")
            source = archive.extractfile(entry)
            left = entry.size
            while source is not None and left > 0:
                data = source.read(min(left, _CHUNK))
                if not data:
                    raise _Damaged(f"it ends within {entry.name!r}")
                left -= len(data)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]

    def _link(self, entry: tarfile.TarInfo, parent: Directory, name: str) -> None:
        target = self._components(entry.linkname, entry.name)
        try:
            source = self._root.below(target[:-1])
            status = os.stat(target[-1] if target else ".", dir_fd=source.fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):  # its mode could not be set without following it
                self._refuse(entry.name, "a hard link to a symbolic link")
            if stat.S_ISDIR(status.st_mode):
                self._refuse(entry.name, "a hard link to a directory")
            os.link(target[-1], name, src_dir_fd=source.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            self._refuse(entry.name, f"a hard link to {entry.linkname!r}, which the archive does not hold before it")

    def _components(self, path: str, entry: str) -> tuple[str, ...]:
        parts = tuple(part for part in path.split("/") if part not in ("", "."))
        if ".." in parts or "\0" in path:
            self._refuse(entry, f"the name {path!r} leads out of the archive")
        return parts

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
            import shutil

            shutil.rmtree(path[-1], dir_fd=parent.fd)
            self._last = ((), self._root)
            inside = "/".join(path) + "/"
            self.owners = {known: owner for known, owner in self.owners.items() if not known.startswith(inside)}
            self._directories = {d: meta for d, meta in self._directories.items() if d[: len(path)] != path}

    def _own(self, path: str, entry: tarfile.TarInfo) -> None:
        if entry.uid or entry.gid:
            self.owners[path] = (entry.uid, entry.gid)
        else:
            self.owners.pop(path, None)

    def _refuse(self, entry: str, cause: str) -> NoReturn:
        raise ContextError(f"{cause}: {entry!r}", place=self.name)


def _mtime_ns(entry: tarfile.TarInfo) -> int:
    """The time in nanoseconds; the library's float would lose the last digits of a PAX header's decimal number."""
    text = entry.pax_headers.get("mtime")
    if text is None:
        return int(entry.mtime) * 1_000_000_000
    seconds, _, fraction = text.partition(".")
    whole = int(seconds) * 1_000_000_000
    part = int((fraction + "000000000")[:9])
    return whole - part if seconds.startswith("-") else whole + part
