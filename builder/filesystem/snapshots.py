"""Unpacked layers, kept by their diff IDs: `ROOT/snapshots/<hex>/fs`, or `ROOT/snapshots/<hex>/layer.erofs`, an image.

A cache that may be deleted at any time. Directories appear by a rename, so what is there is complete; one process at
a time makes a given one (a lock in the file `lock`), and what a killed one leaves is the temporary directory that the
next one removes. Since a snapshot is not flushed to the disk (that would cost seconds), it carries the boot in which
it was made until `settle`: after a restart of the machine one that may have holes is not believed.

Most layers are complete in themselves and serve over any base. One that leaves out directories it needs takes their
owner and mode, or a symbolic link in their place, from the layers that it lies on, and has one snapshot for each such
stack: `<hex>-<key of the stack>`. So has one whose step linked new names to files of the layers that it lies on.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from builder.boot import current_boot
from builder.errors import LayerError, StoreError
from builder.filesystem.archive import Readable
from builder.filesystem.layered import LayeredTree
from builder.filesystem.locks import LockTable
from builder.filesystem.mounted_images import MountedImages
from builder.filesystem.placement import make_apart
from builder.filesystem.syscalls import remove_tree, syncfs
from builder.filesystem.unpack import Unpacked, unpack

_DIFF_ID = re.compile(r"sha256:([0-9a-f]{64})")
_SNAPSHOT = re.compile(r"[0-9a-f]{64}(?:-[0-9a-f]{32})?")
_TEMPORARY = "tmp-"
_GONE = "gone-"
_BOOT = "boot"
_IMPLICIT = "implicit"
IMAGE = "layer.erofs"


class Snapshots:
    """The snapshots below `root`, the store's directory, in `name` there. Any number of threads and processes may use
    one root; those that use one name must agree on `userxattr`: neither kind of process can read the other's marks."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        userxattr: bool = False,
        owners: bool = True,
        name: str = "snapshots",
        images: bool = False,
    ) -> None:
        """With `images`, large layers become such where they can be mounted."""
        self.directory = os.path.join(root, name)
        self._images = MountedImages(self.directory) if images else None
        self._userxattr = userxattr
        self._owners = owners
        self._boot = ""
        self.shells: Callable[[], str] = lambda: self.make_shell(self.directory)
        """Where `adopt` has the directories from that become snapshots: `make_shell` made them."""

    def path(self, diff_id: str, below: Sequence[str] = ()) -> str | None:
        """The directory of a layer that is unpacked, or None. `below` are the directories that this method gave for the
        layers underneath, top first. One that is mounted serves until `close`."""
        name = _hex(diff_id)
        if not (below and os.path.exists(f"{self.directory}/{name}/{_IMPLICIT}")):
            plain = self._files(name)
            if plain is not None:
                return plain
        return self._files(f"{name}-{self._stack_key(below)}") if below else None

    @property
    def mounted(self) -> bool:
        """Whether anything is mounted."""
        return bool(self._images)

    def close(self) -> None:
        """Let go of what is mounted: no directory that this object gave may be used any more."""
        if self._images is not None:
            self._images.close()

    def unpack(
        self,
        diff_id: str,
        open_tar: Callable[[], Readable],
        below: Sequence[str] = (),
        *,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        large: bool = True,
    ) -> str:
        """The directory of a layer, unpacked now unless it is already. A `large` one is worth an image, or a place of
        its own on the disk (`placement`).

        `open_tar` gives the uncompressed tar stream; it is called again where the layer has no place in an image. The
        streams are the caller's to close.
        Raises LayerError when the stream is malformed or when its digest is not `diff_id`.
        """
        with self._making(diff_id) as name:
            known = self.path(diff_id, below)
            if known is not None:
                return known
            with self._temporary(name) as temporary:
                done = self._write_image(open_tar, temporary, max_entries, max_bytes) if large else None
                if done is None:
                    files = f"{temporary}/fs"
                    if large:
                        make_apart(files, 0o755)
                    else:
                        os.mkdir(files)
                        os.chmod(files, 0o755)  # whatever the umask
                    done = self._unpack(open_tar, files, below, max_entries, max_bytes, temporary)
                if done.diff_id != diff_id:
                    raise LayerError(
                        f"the layer's content is {done.diff_id}", place=diff_id,
                        remedy="it was damaged or forged: remove it and pull again",
                    )  # fmt: skip
                final = name
                if done.implicit:
                    if below:
                        final = f"{name}-{self._stack_key(below)}"
                    else:
                        _write(f"{temporary}/{_IMPLICIT}", "\0".join(done.implicit))
                return self._keep(temporary, final)

    def adopt(self, diff_id: str, upper: str | os.PathLike[str], below: Sequence[str] = ()) -> str:
        """Make a step's upper directory, which is on the same file system and no longer mounted, the snapshot of the
        layer that was made of it. The directory is gone afterwards. One that holds more than the layer, because files
        of it are hard links to such of the layers underneath, serves over these alone: `below` as for `path`. Raises
        StoreError."""
        with self._making(diff_id) as name:
            known = self.path(diff_id, below)
            if known is not None and (below or not os.path.exists(f"{self.directory}/{name}/{_IMPLICIT}")):
                remove_tree(os.fspath(upper))
                return known
            return self._take(os.fspath(upper), "fs", f"{name}-{self._stack_key(below)}" if below else name)

    @property
    def takes_images(self) -> bool:
        """Whether this process can mount what `adopt_image` makes a snapshot."""
        return self._images is not None and self._images.able

    def adopt_image(self, diff_id: str, image: str) -> None:
        """Make an image of a layer, a file on the same file system, its snapshot, unless it has one. Raises
        StoreError."""
        with self._making(diff_id) as name:
            if not self._complete(f"{self.directory}/{name}"):
                self._take(image, IMAGE, name)

    def _take(self, path: str, form: str, name: str) -> str:
        """Make what has been written elsewhere the files of a snapshot, as `fs` or IMAGE."""
        shell = self.shells()
        try:
            os.rename(path, f"{shell}/{form}")
            return self._place(shell, name)
        except OSError as error:
            raise StoreError(f"cannot become a snapshot: {error.strerror}", place=path) from error
        finally:
            remove_tree(shell)  # renamed by now, if all went well

    def make_shell(self, directory: str) -> str:
        """Make what only lacks its files to be a snapshot, in a directory on the same file system. Raises OSError."""
        os.makedirs(self.directory, exist_ok=True)
        shell = f"{directory}/{_GONE}{os.urandom(8).hex()}"  # what `sweep` removes, if it is the snapshots' own
        os.mkdir(shell, 0o700)
        _write(f"{shell}/{_BOOT}", self._current_boot())
        return shell

    def remove(self, diff_id: str) -> None:
        """Remove all snapshots of a layer; nothing happens if there is none. Nobody may be using them."""
        with self._making(diff_id) as name:
            for entry in self._names():
                if entry == name or entry.startswith(f"{name}-"):
                    self._discard(entry)

    def set_aside(self, keep: Collection[str]) -> list[str]:
        """Take away all snapshots of layers that are not in `keep` (diff IDs). Returns the directories to be removed,
        which have other names now. Nobody may be using them, or begin to."""
        aside = []
        for name in self._names():
            if _SNAPSHOT.fullmatch(name) and f"sha256:{name[:64]}" not in keep:
                gone = f"{self.directory}/{_GONE}{os.urandom(8).hex()}"
                os.rename(f"{self.directory}/{name}", gone)
                aside.append(gone)
        return aside

    def diff_ids(self, among: Collection[str] | None = None) -> list[str]:
        """The layers that have a complete snapshot, sorted; `among` some of them."""
        asked = None if among is None else {_hex(diff_id) for diff_id in among}
        names = {
            name[:64]
            for name in self._names()
            if len(name) >= 64 and (asked is None or name[:64] in asked) and self._complete(f"{self.directory}/{name}")
        }
        return sorted(f"sha256:{name}" for name in names if _DIFF_ID.fullmatch(f"sha256:{name}"))

    def settle(self, waiting: float = 0) -> bool:
        """Flush the snapshots to the disk, so that they are believed after a restart too, once one of them has waited
        for that for as many seconds. Whether it was done. Takes as long as the disk needs for all that was written
        lately to its file system. Raises OSError."""
        marks = {name: status for name in self._names() if (status := self._mark(name)) is not None}
        if not marks or min(status.st_mtime for status in marks.values()) > time.time() - waiting:
            return False
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(descriptor)
        finally:
            os.close(descriptor)
        for name, status in marks.items():
            with self._locks().exclusive_or_not(name[:64]) as held:
                now = self._mark(name) if held else None
                if now is not None and os.path.samestat(now, status):  # it is still the one that was flushed
                    os.unlink(f"{self.directory}/{name}/{_BOOT}")
        return True

    def _mark(self, name: str) -> os.stat_result | None:
        """The file that says that a snapshot was made since the last boot and was not flushed; None if there is none,
        or if it was made before."""
        try:
            status = os.stat(f"{self.directory}/{name}/{_BOOT}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status if _SNAPSHOT.fullmatch(name) and self._complete(f"{self.directory}/{name}") else None

    def sweep(self) -> None:
        """Remove what killed processes left behind."""
        for name in self._names():
            self.sweep_one(name)

    def sweep_one(self, name: str) -> bool:
        """Remove an entry of `directory` that a killed process left. Whether that was done: not if it is anything else,
        or if its owner is at work."""
        if name.startswith(_GONE):
            remove_tree(f"{self.directory}/{name}")  # which somebody else may be doing, too
            return True
        if not name.startswith(_TEMPORARY):
            return False
        with self._locks().exclusive_or_not(name[len(_TEMPORARY) :]) as held:
            if held:
                remove_tree(f"{self.directory}/{name}")
            return held

    def _unpack(
        self,
        open_tar: Callable[[], Readable],
        files: str,
        below: Sequence[str],
        max_entries: int | None,
        max_bytes: int | None,
        beside: str,
    ) -> Unpacked:
        with LayeredTree(below) as tree:
            return unpack(
                open_tar(), files, layer=True, below=tree if below else None, userxattr=self._userxattr,
                owners=self._owners, max_entries=max_entries, max_bytes=max_bytes, beside=beside,
            )  # fmt: skip

    def _write_image(
        self, open_tar: Callable[[], Readable], directory: str, max_entries: int | None, max_bytes: int | None
    ) -> Unpacked | None:
        """Unpack a layer as an image; None where there is none of it."""
        if not self.takes_images:
            return None
        from builder.filesystem.erofs_format import Unsuitable
        from builder.filesystem.layer_image import write_image

        path = f"{directory}/{IMAGE}"
        try:
            return write_image(open_tar(), path, max_entries=max_entries, max_bytes=max_bytes)
        except Unsuitable:
            os.unlink(path)
            return None

    def _files(self, name: str) -> str | None:
        """The directory with the files of a complete snapshot; None if there is none, or if it cannot be mounted."""
        directory = f"{self.directory}/{name}"
        if not self._complete(directory):
            return None
        image = f"{directory}/{IMAGE}"
        if not os.path.exists(image):
            return f"{directory}/fs"
        return self._images.mount(name, image) if self._images is not None else None

    def _stack_key(self, below: Sequence[str]) -> str:
        """A short name for a stack of snapshots, which their own names stand for."""
        import hashlib

        mounted = self._images.name_of if self._images is not None else lambda _: None
        names = "\0".join(mounted(path) or path.rsplit("/", 2)[-2] for path in below)
        return hashlib.sha256(names.encode()).hexdigest()[:32]

    def _complete(self, directory: str) -> bool:
        """Whether a snapshot is there, and was flushed or made since the last boot."""
        try:
            descriptor = os.open(f"{directory}/{_BOOT}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return os.path.isdir(f"{directory}/fs") or os.path.exists(f"{directory}/{IMAGE}")
        try:
            return os.read(descriptor, 64).decode("ascii", "replace") == self._current_boot()
        finally:
            os.close(descriptor)

    def _current_boot(self) -> str:
        if not self._boot:
            self._boot = current_boot()
        return self._boot

    def _keep(self, temporary: str, name: str) -> str:
        """Make a finished temporary directory the snapshot of a name."""
        _write(f"{temporary}/{_BOOT}", self._current_boot())
        return self._place(temporary, name)

    def _place(self, temporary: str, name: str) -> str:
        """Give a snapshot its name. Whatever has the name is not worth keeping."""
        self._discard(name)
        os.rename(temporary, f"{self.directory}/{name}")
        files = self._files(name)
        if files is None:
            raise StoreError("cannot be mounted any more", place=f"{self.directory}/{name}")
        return files

    def _discard(self, name: str) -> None:
        """Remove a snapshot, in one step for whoever looks."""
        gone = f"{self.directory}/{_GONE}{os.urandom(8).hex()}"
        try:
            os.rename(f"{self.directory}/{name}", gone)
        except FileNotFoundError:
            return
        remove_tree(gone)

    @contextlib.contextmanager
    def _temporary(self, name: str) -> Iterator[str]:
        """A temporary directory on the snapshots' file system, for the holder of the lock on `name`."""
        path = f"{self.directory}/{_TEMPORARY}{name}"
        remove_tree(path)
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            remove_tree(path)  # renamed by now, if all went well

    @contextlib.contextmanager
    def _making(self, diff_id: str) -> Iterator[str]:
        """The layer's name, while nobody else makes or removes it."""
        name = _hex(diff_id)
        with self._locks().exclusive(name):
            yield name

    def _locks(self) -> LockTable:
        os.makedirs(self.directory, exist_ok=True)
        return LockTable(f"{self.directory}/lock")

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except FileNotFoundError:
            return []


def _hex(diff_id: str) -> str:
    match = _DIFF_ID.fullmatch(diff_id)
    if match is None:
        raise StoreError("this is no diff ID", place=diff_id, remedy="layers are named sha256:<64 hexadecimal digits>")
    return match[1]


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, os.fsencode(text))
    finally:
        os.close(descriptor)
