"""A stack of unpacked layers seen as one tree, without mounting anything.

The layers are directories in overlayfs's form, as snapshots hold them. They must not change while the tree is used.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Sequence
from functools import partial

from builder.filesystem import kinds
from builder.filesystem.descriptor import Directory, is_plain
from builder.filesystem.layer_facts import LayerFacts, Place
from builder.filesystem.overlay_format import CAPABILITY, attributes, file_info, is_opaque, own_prefix
from builder.filesystem.syscalls import open_beneath
from builder.filesystem.tree import FileInfo

_CACHED = 4096  # entries of each cache before it starts anew

_LONGEST_NAME = 255  # bytes: NAME_MAX

_EMPTY_ROOT = FileInfo(kinds.DIRECTORY, 0o755)

_Stack = tuple[int, ...]


class LayeredTree:
    """A `FileTree` over layers, top first. No symbolic link is followed in any component of any path.

    Files of the layers stay where they are: `lstat` and the like cost a few microseconds a layer that has the
    directory. Owns a descriptor for each layer that was looked at: close it, or use it as a context manager. Several
    threads may use one tree.

    `facts` gives what trees over some of the same layers have learnt of each, and that is added to.
    """

    def __init__(
        self, directories: Sequence[str | os.PathLike[str]], facts: Callable[[str], LayerFacts] = lambda _: LayerFacts()
    ) -> None:
        self.directories = tuple(os.fspath(directory) for directory in directories)
        self._facts = [facts(directory) for directory in self.directories]
        self._roots: list[int | None] = [None] * len(self.directories)
        self._last: dict[int, tuple[str, Directory]] = {}  # of each layer, the directory that was looked at last
        self._lock = threading.Lock()
        self._closed = False
        self._infos: dict[str, tuple[FileInfo, int] | None] = {}
        self._stacks: dict[str, tuple[_Stack, bool] | None] = {}

    def lstat(self, path: str) -> FileInfo | None:
        found = self.find(path)
        return found[0] if found is not None else None

    def find(self, path: str) -> tuple[FileInfo, int] | None:
        """The file at `path` and the index of the layer that it comes from."""
        try:
            return self._infos[path]
        except KeyError:
            found = self._find(path)
        if len(self._infos) >= _CACHED:
            self._infos = {}
        self._infos[path] = found
        return found

    def scan(self, path: str) -> list[tuple[str, FileInfo]]:
        return [(name, info) for name, info, _ in self.scan_layers(path) if info.kind != kinds.WHITEOUT]

    def scan_layers(self, path: str) -> list[tuple[str, FileInfo, int]]:
        """Like `scan`, with the whiteouts that no layer of this stack fills again, and the index of the layer that each
        comes from."""
        stack = self._stack(path)
        if stack is None:
            number = errno.ENOENT if self.lstat(path) is None else errno.ENOTDIR
            raise OSError(number, os.strerror(number), path)
        merged: dict[str, tuple[FileInfo, int]] = {}
        for layer in stack[0]:
            descriptor = self._open_to_read(layer, path)
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        if entry.name not in merged:
                            merged[entry.name] = _entry_info(entry, descriptor), layer
            finally:
                os.close(descriptor)
        return [(name, *merged[name]) for name in sorted(merged, key=os.fsencode)]

    def open(self, path: str) -> int:
        found = self.find(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        info, layer = found
        if info.kind != kinds.FILE:
            number = errno.EISDIR if info.kind == kinds.DIRECTORY else errno.EINVAL
            raise OSError(number, f"not a regular file but a {kinds.word(info.kind)}", path)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        directory, _, name = path.rpartition("/")
        if not is_plain(name):
            return self._open(layer, path, flags)
        parent = self._directory(layer, directory)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent.fd)

    def xattrs(self, path: str) -> dict[str, bytes]:
        """File capabilities only: no other attribute goes into new layers, as in BuildKit."""
        found = self.find(path)
        if found is None or found[0].kind != kinds.FILE:
            return {}
        return self._attributes(found[1], path, (CAPABILITY,))

    def all_xattrs(self, layer: int, path: str) -> dict[str, bytes]:
        """Every attribute of a file of a layer but the kernel's marks."""
        return self._attributes(layer, path, None)

    def source(self, layer: int, path: str) -> tuple[int, str]:
        """A descriptor of the directory that a file of a layer is in, good until one of another directory is asked for,
        and the file's name there."""
        directory, _, name = path.rpartition("/")
        return self._directory(layer, directory).fd, name

    def opaque(self, path: str) -> bool:
        """Whether the directory hides whatever lies below the stack's lowest layer at this path: one of the layers says
        so, or has something else than a directory there."""
        stack = self._stack(path)
        return stack is not None and stack[1]

    def close(self) -> None:
        self._closed = True
        self._last.clear()
        roots, self._roots = self._roots, []
        for descriptor in roots:
            if descriptor is not None:
                os.close(descriptor)

    def __enter__(self) -> LayeredTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            self.close()

    def _find(self, path: str) -> tuple[FileInfo, int] | None:
        if not path and not self.directories:
            return _EMPTY_ROOT, -1
        parent = self._stack(path.rpartition("/")[0]) if path else (tuple(range(len(self.directories))), False)
        if parent is None:
            return None
        # At the top every layer may have the file, and nothing can lead elsewhere on the way to it.
        look = self._top_info if _is_name(path) else self._layer_info
        directory, _, name = path.rpartition("/")
        plain = is_plain(name)
        for layer in parent[0]:
            if plain:
                names = self._facts[layer].names(directory, partial(self._open_to_read, layer, directory))
                if name not in names:
                    continue
            info = look(layer, path)
            if info is not None:
                return None if info.kind == kinds.WHITEOUT else (info, layer)
        return None

    def _stack(self, path: str) -> tuple[_Stack, bool] | None:
        """The layers whose directories make up the directory `path`, top first, and whether it is opaque to what
        lies below all of them. None when it is no directory."""
        stacks = self._stacks  # another thread may put a new dictionary in its place, but never takes entries out of it
        try:
            return stacks[path]
        except KeyError:
            pass
        # From the top down with a loop: a hostile image may be deeper than Python's stack.
        known = path
        missing: list[str] = []
        while known not in stacks:
            missing.append(known)
            if not known:
                break
            known = known.rpartition("/")[0]
        if len(stacks) >= _CACHED:
            stacks = self._stacks = {known: stacks[known]} if known in stacks else {}
        result: tuple[_Stack, bool] | None = None
        for directory in reversed(missing):
            if directory:
                above = stacks[directory.rpartition("/")[0]]
                result = self._merge(directory, *above) if above is not None else None
            else:
                result = self._merge("", tuple(range(len(self.directories))), False)
            stacks[directory] = result
        return result

    def _merge(self, path: str, candidates: _Stack, opaque: bool) -> tuple[_Stack, bool] | None:
        layers: list[int] = []
        for layer in candidates:
            facts = self._facts[layer]
            place = facts.place(path) or facts.keep_place(path, self._place(layer, path))
            if place == "absent":
                continue
            if place != "other":
                layers.append(layer)
            if place != "directory":
                opaque = True
                break
        return (tuple(layers), opaque) if layers or not path else None

    def _place(self, layer: int, path: str) -> Place:
        if not path:
            return root_place(self.directories[layer])
        if _is_name(path) and self._top_info(layer, path) is None:
            return "absent"
        try:
            descriptor = self._open(layer, path, os.O_PATH)
        except OSError as error:
            if _is_absent(error, path):
                return "absent"
            raise
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                return "other"
            link = f"/proc/self/fd/{descriptor}"
            return "opaque" if is_opaque(link, attributes(link, follow=True)) else "directory"
        finally:
            os.close(descriptor)

    def _top_info(self, layer: int, name: str) -> FileInfo | None:
        path = f"{self.directories[layer]}/{name}"
        try:
            status = os.lstat(path)
        except OSError as error:
            if _is_absent(error, name):
                return None
            raise
        return file_info(status, os.readlink(path) if stat.S_ISLNK(status.st_mode) else "")

    def _layer_info(self, layer: int, path: str) -> FileInfo | None:
        directory, _, name = path.rpartition("/")
        try:
            if not is_plain(name):
                descriptor = self._open(layer, path, os.O_PATH)
                try:
                    return file_info(os.fstat(descriptor), "")
                finally:
                    os.close(descriptor)
            parent = self._directory(layer, directory)  # held, or another thread could close it
            status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            link = os.readlink(name, dir_fd=parent.fd) if stat.S_ISLNK(status.st_mode) else ""
            return file_info(status, link)
        except OSError as error:
            if _is_absent(error, path):
                return None
            raise

    def _directory(self, layer: int, path: str) -> Directory:
        """A directory of a layer, which is often the one that was asked for last."""
        known = self._last.get(layer)
        if known is not None and known[0] == path:
            return known[1]
        directory = Directory(self._open(layer, path, os.O_PATH | os.O_DIRECTORY))
        self._last[layer] = (path, directory)
        return directory

    def _attributes(self, layer: int, path: str, wanted: tuple[str, ...] | None) -> dict[str, bytes]:
        directory, _, name = path.rpartition("/")
        parent = self._directory(layer, directory)  # held, or another thread could close it
        file = f"/proc/self/fd/{parent.fd}/{name}"
        return {
            name: os.getxattr(file, name, follow_symlinks=False)
            for name in sorted(attributes(file))
            if (name in wanted if wanted is not None else not name.startswith(own_prefix()))
        }

    def _open_to_read(self, layer: int, directory: str) -> int:
        return self._open(layer, directory, os.O_RDONLY | os.O_DIRECTORY)

    def _open(self, layer: int, path: str, flags: int) -> int:
        root = self._roots[layer]
        if root is None:
            with self._lock:
                root = self._roots[layer]
                if root is None:
                    root = os.open(self.directories[layer], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                    self._roots[layer] = root
        return open_beneath(root, path, flags)


def root_place(directory: str) -> Place:
    """What the layer in a directory has at `/`: that is there, and nothing can lead elsewhere."""
    return "opaque" if is_opaque(directory, attributes(directory, follow=True)) else "directory"


def _is_name(path: str) -> bool:
    """Whether a path names an entry of the root itself."""
    return "/" not in path and path not in ("", ".", "..")


def _is_absent(error: OSError, path: str) -> bool:
    """Whether an error says that nothing is at a path: no file can have a longer name than file systems allow. Of a
    path that is too long as a whole it does not say so."""
    if error.errno == errno.ENAMETOOLONG:
        return len(os.fsencode(path.rpartition("/")[2])) > _LONGEST_NAME
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


def _entry_info(entry: os.DirEntry[str], directory: int) -> FileInfo:
    link = os.readlink(entry.name, dir_fd=directory) if entry.is_symlink() else ""
    return file_info(entry.stat(follow_symlinks=False), link)
