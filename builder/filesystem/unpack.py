"""From a tar stream to a directory, safe against what the stream may hold.

Nothing is reached by a path string: parents are opened with `openat2` inside the root, the last component is created
with O_EXCL or by a call that follows no link. A parent that is a symbolic link (of the archive itself, or of the layers
below) is resolved inside the root, as containerd does with `fs.RootPath`. Owners, modes, times and attributes are set
through the descriptor of the very file that was made.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

import msgspec

from builder.errors import MAKE_ROOM, NO_ROOM, LayerError
from builder.filesystem import kinds
from builder.filesystem.archive import ArchiveEntry, TarReader
from builder.filesystem.overlay_format import OPAQUE, OWN_PREFIXES
from builder.filesystem.placement import Placement
from builder.filesystem.readable import Readable
from builder.filesystem.readahead import ReadAhead
from builder.filesystem.syscalls import open_beneath, remove_tree
from builder.filesystem.tar import META_PREFIX, OPAQUE_MARKER, WHITEOUT_PREFIX
from builder.filesystem.tree import FileInfo, FileTree
from builder.filesystem.unpack_parents import Parents


class Unpacked(msgspec.Struct, frozen=True):
    """What came out. `size` is the stream's, `diff_id` its digest (`sha256:…`), `entries` the number of headers;
    `implicit` the directories that entries needed but that the archive does not have: their owner and mode come
    from the layers below, if those were given."""

    diff_id: str
    entries: int
    size: int
    implicit: tuple[str, ...] = ()


def unpack(
    stream: Readable,
    directory: str | os.PathLike[str],
    *,
    layer: bool,
    below: FileTree | None = None,
    userxattr: bool = False,
    max_entries: int | None = None,
    beside: str = "",
) -> Unpacked:
    """Unpack an uncompressed tar stream into an existing directory, which nobody else may use meanwhile.

    With `layer` whiteouts become overlayfs's, and `below` is the tree that the layer will lie on: directories that
    the archive leaves out, and targets of its hard links, are looked up there. `userxattr` says that we are in a user
    namespace: opaque directories get `user.overlay.opaque`, and devices that cannot be made are left out. Attributes of
    overlayfs itself are dropped (they would let a layer forge the stack); so is an attribute that the file system does
    not know. `beside` is for `Placement`. The whole stream is read, also what follows the archive's end. Raises
    LayerError naming the entry; what was unpacked so far stays.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with ReadAhead(stream) as chunks:
            reader = TarReader(chunks, max_entries=max_entries)
            unpacker = Unpacker(root, layer=layer, below=below, userxattr=userxattr, beside=beside)
            try:
                for entry in reader:
                    try:
                        unpacker.add(entry)
                    except OSError as error:
                        raise failed(entry, error) from error
                reader.drain()
                unpacker.finish()
            finally:
                unpacker.close()
            return Unpacked(chunks.digest, reader.entries, chunks.size, tuple(sorted(unpacker.parents.implicit)))
    finally:
        os.close(root)


def failed(entry: ArchiveEntry, error: OSError) -> LayerError:
    """The error for an entry that the system would not take."""
    remedy = None
    if error.errno in (errno.EPERM, errno.EINVAL, errno.EACCES):
        owner = f"{entry.info.uid}:{entry.info.gid}"
        remedy = f"unpack as root, or give the user subordinate ids that include {owner} (/etc/subuid, /etc/subgid)"
    elif error.errno in NO_ROOM:
        remedy = MAKE_ROOM
    return LayerError(f"cannot be unpacked: {error.strerror or error}", place=entry.path or "/", remedy=remedy)


class Unpacker:
    """The work of `unpack`, entry by entry; `root` is a descriptor that stays open meanwhile."""

    def __init__(self, root: int, *, layer: bool, below: FileTree | None, userxattr: bool, beside: str) -> None:
        self._root = root
        self._layer = layer
        self._below = below
        self._userxattr = userxattr
        self._opaque_attribute = OPAQUE[userxattr]
        self._times: dict[str, int] = {}  # directories' times, set when nothing is added any more
        self._placement = Placement(beside)
        self.parents = Parents(root, below, self)

    def add(self, entry: ArchiveEntry) -> None:
        """Unpack one entry. Raises OSError or LayerError."""
        directory, _, name = entry.path.rpartition("/")
        if not name:
            if entry.info.kind != kinds.DIRECTORY:
                raise LayerError("the root of an archive must be a directory", place="/")
            self._finish_directory(os.dup(self._root), "", entry.info, entry.xattrs)
            return
        if self._layer and name.startswith(WHITEOUT_PREFIX):
            self._whiteout(directory, name, entry.path)
            return
        resolved, parent = self.parents.open(directory)
        path = f"{resolved}/{name}" if resolved else name
        self.parents.implicit.discard(path)
        kind = entry.info.kind
        if kind == kinds.FILE:
            self._file(parent, name, path, entry)
        elif kind == kinds.DIRECTORY:
            self.make_directory(parent, name, path, entry.info, entry.xattrs)
        elif kind == kinds.HARDLINK:
            self._hardlink(parent, name, path, entry)
        else:
            self._special(parent, name, path, entry)

    def finish(self) -> None:
        """Set the directories' times."""
        for path, time in self._times.items():
            try:
                descriptor = open_beneath(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue  # replaced since by something else
            try:
                os.utime(descriptor, ns=(time, time))
            finally:
                os.close(descriptor)

    def close(self) -> None:
        self.parents.close()
        self._placement.close()

    def make_directory(self, parent: int, name: str, path: str, info: FileInfo, xattrs: Mapping[str, bytes]) -> None:
        """Make a directory, or take over the one that is there; a whiteout there makes it opaque."""
        opaque = False
        try:
            self._placement.mkdir(name, 0o700, parent)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                opaque = self._layer
                self._remove(parent, name)
                self._placement.mkdir(name, 0o700, parent)
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        if opaque:
            os.setxattr(descriptor, self._opaque_attribute, b"y")
            self.parents.hidden.add(path)
        self._finish_directory(descriptor, path, info, xattrs)

    def _finish_directory(self, descriptor: int, path: str, info: FileInfo, xattrs: Mapping[str, bytes]) -> None:
        try:
            self._set(descriptor, info, xattrs)
        finally:
            os.close(descriptor)
        self._times[path] = info.mtime_ns

    def _file(self, parent: int, name: str, path: str, entry: ArchiveEntry) -> None:
        try:
            descriptor = self._placement.create(name, parent)
        except FileExistsError:
            self._remove(parent, name)
            descriptor = self._placement.create(name, parent)
        try:
            for piece in entry.content.chunks():
                written = os.write(descriptor, piece)
                while written < len(piece):
                    written += os.write(descriptor, piece[written:])
            self._set(descriptor, entry.info, entry.xattrs)
            os.utime(descriptor, ns=(entry.info.mtime_ns, entry.info.mtime_ns))
        finally:
            os.close(descriptor)

    def _set(self, descriptor: int, info: FileInfo, xattrs: Mapping[str, bytes]) -> None:
        """Owner, then mode (chown clears setuid), then attributes (chown clears capabilities)."""
        os.fchown(descriptor, info.uid, info.gid)
        os.fchmod(descriptor, info.mode)
        if xattrs:
            self._set_xattrs(descriptor, xattrs)

    def _set_xattrs(self, file: int | str, xattrs: Mapping[str, bytes]) -> None:
        for name, value in xattrs.items():
            if name.startswith(OWN_PREFIXES):
                continue
            try:
                if isinstance(file, int):
                    os.setxattr(file, name, value)
                else:
                    os.setxattr(file, name, value, follow_symlinks=False)
            except OSError as error:
                # Not known to this file system or kernel, or not allowed for this kind of file: containerd goes on.
                unprivileged = self._userxattr or not name.startswith("security.")
                if error.errno != errno.ENOTSUP and not (error.errno in (errno.EPERM, errno.EACCES) and unprivileged):
                    raise

    def _special(self, parent: int, name: str, path: str, entry: ArchiveEntry) -> None:
        """Symbolic links, devices and fifos."""
        info = entry.info
        for attempt in range(2):
            try:
                if info.kind == kinds.SYMLINK:
                    self._placement.symlink(info.link, name, parent)
                elif not self._make_node(parent, name, info):
                    return
                break
            except FileExistsError:
                if attempt:
                    raise
                self._remove(parent, name)
        os.chown(name, info.uid, info.gid, dir_fd=parent, follow_symlinks=False)
        if info.kind != kinds.SYMLINK:
            os.chmod(name, info.mode, dir_fd=parent)  # what we just made: no link
        if entry.xattrs:
            self._set_xattrs(f"/proc/self/fd/{parent}/{name}", entry.xattrs)
        os.utime(name, ns=(info.mtime_ns, info.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _make_node(self, parent: int, name: str, info: FileInfo) -> bool:
        """False when a device cannot be made inside a user namespace, where Docker leaves it out as well."""
        if info.kind == kinds.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
            return True
        file_type = stat.S_IFCHR if info.kind == kinds.CHARACTER else stat.S_IFBLK
        try:
            os.mknod(name, file_type | 0o600, os.makedev(*info.device), dir_fd=parent)
        except PermissionError:
            if not self._userxattr:
                raise
            return False
        return True

    def _hardlink(self, parent: int, name: str, path: str, entry: ArchiveEntry) -> None:
        """Link to an entry unpacked before, or (copied first) to a file of the layers below."""
        target = entry.hardlink or ""
        directory, _, base = target.rpartition("/")
        if not base:
            raise LayerError(f"its hard link leads to {target or '/'!r}", place=entry.path)
        resolved, source = self.parents.open(directory, create=False)
        real = f"{resolved}/{base}" if resolved else base
        if real == path:
            return  # a link to itself
        if source < 0 or not self._exists(source, base):
            resolved, source = self._copy_up(real, target, entry)
            _, parent = self.parents.open(path.rpartition("/")[0])
        for attempt in range(2):
            try:
                os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
                break
            except FileExistsError:
                if attempt:
                    raise
                if self._remove(parent, name):
                    _, source = self.parents.open(resolved)
                    _, parent = self.parents.open(path.rpartition("/")[0])
        self._set_link(parent, name, entry.info)

    def _exists(self, directory: int, name: str) -> bool:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return not (self._layer and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0)

    def _set_link(self, parent: int, name: str, info: FileInfo) -> None:
        """A hard link's own header counts for the file, as in Docker; set only what differs, since chown drops
        capabilities."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return
        chown = (status.st_uid, status.st_gid) != (info.uid, info.gid)
        if chown:
            os.chown(name, info.uid, info.gid, dir_fd=parent, follow_symlinks=False)
        if chown or (status.st_mode & 0o7777) != info.mode:
            os.chmod(name, info.mode, dir_fd=parent)  # the stat above says that it is no link
        if status.st_mtime_ns != info.mtime_ns:
            os.utime(name, ns=(info.mtime_ns, info.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _copy_up(self, real: str, target: str, entry: ArchiveEntry) -> tuple[str, int]:
        """Bring a hard link's target up from the layers below."""
        below = self._below if not self.parents.is_hidden(real) else None
        info = below.lstat(real) if below is not None else None
        if below is None or info is None or info.kind != kinds.FILE:
            raise LayerError(f"its hard link leads to {target!r}, which is no earlier entry", place=entry.path)
        directory, _, base = real.rpartition("/")
        resolved, parent = self.parents.open(directory)
        self.parents.implicit.add(real)
        source = below.open(real)
        try:
            descriptor = self._placement.create(base, parent)
            try:
                while os.sendfile(descriptor, source, None, 1 << 24):
                    pass
                self._set(descriptor, info, below.xattrs(real))
                os.utime(descriptor, ns=(info.mtime_ns, info.mtime_ns))
            finally:
                os.close(descriptor)
        finally:
            os.close(source)
        return resolved, parent

    def _whiteout(self, directory: str, name: str, place: str) -> None:
        """A whiteout hides what lies below, never an entry of the same layer, whatever their order."""
        if name == OPAQUE_MARKER:
            resolved, parent = self.parents.open(directory)
            self._hide(resolved, parent)
            return
        if name.startswith(META_PREFIX):
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in ("", ".", ".."):
            raise LayerError(f"a whiteout of {hidden!r}", place=place)
        resolved, parent = self.parents.open(directory)
        path = f"{resolved}/{hidden}" if resolved else hidden
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            status = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._hide(*self.parents.open(path))

    def _hide(self, path: str, descriptor: int) -> None:
        """Make a directory opaque. `descriptor` is an O_PATH one."""
        os.setxattr(f"/proc/self/fd/{descriptor}", self._opaque_attribute, b"y")
        self.parents.hidden.add(path)

    def _remove(self, parent: int, name: str) -> bool:
        """Make room for an entry. True when a directory went: then no cached descriptor is good any more."""
        try:
            os.unlink(name, dir_fd=parent)
            self.parents.forget_links()
        except (IsADirectoryError, PermissionError):
            remove_tree(name, dir_fd=parent)
            self.parents.forget(keep=parent)
            return True
        return False
