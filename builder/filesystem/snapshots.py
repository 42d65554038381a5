"""Unpacked layers, kept by their diff IDs: `ROOT/snapshots/<hex>/fs`, or, as an EROFS image, `<hex>/layer.erofs`.

A cache that may be deleted at any time. One process at a time makes a given snapshot (`snapshot_entries`), and what a
killed one leaves is the temporary directory that the next one removes.

Most layers are complete in themselves and serve over any base. One that leaves out directories it needs takes their
owner and mode, or a symbolic link in their place, from the layers that it lies on, and has one snapshot for each such
stack: `<hex>-<key of the stack>`. So has one whose step linked new names to files of the layers that it lies on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from builder.errors import LayerError, StoreError
from builder.filesystem.erofs_mounts import ErofsMounts
from builder.filesystem.locks import Wait
from builder.filesystem.readable import Readable
from builder.filesystem.snapshot_entries import DIRECTORY, EROFS, SnapshotEntries, hex_of, write_new
from builder.filesystem.syscalls import remove_tree
from builder.oci import digests

if TYPE_CHECKING:
    from builder.filesystem.unpack import Unpacked

_IMPLICIT = "implicit"


class Snapshots:
    """The snapshots below `root`, the store's directory, in `name` there. Any number of threads and processes may use
    one root; those that use one name must agree on `userxattr`: neither kind of process can read the other's marks."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        userxattr: bool = False,
        name: str = "snapshots",
        erofs: bool = False,
    ) -> None:
        """With `erofs`, large layers become images where these can be mounted."""
        self.entries = SnapshotEntries(os.path.join(root, name))
        self._mounts = ErofsMounts(self.entries.directory) if erofs else None
        self._userxattr = userxattr
        self.shells: Callable[[], str] = lambda: self.entries.make_shell(self.entries.directory)
        """Where `adopt` has the directories from that become snapshots: `SnapshotEntries.make_shell` made them."""

    def path(self, diff_id: str, below: Sequence[str] = ()) -> str | None:
        """The directory of a layer that is unpacked, or None. `below` are the directories that this method gave for the
        layers underneath, top first. One that is mounted serves until `close`."""
        name = hex_of(diff_id)
        if not (below and os.path.exists(f"{self.entries.path(name)}/{_IMPLICIT}")):
            plain = self._files(name)
            if plain is not None:
                return plain
        return self._files(f"{name}-{self._stack_key(below)}") if below else None

    @property
    def mounted(self) -> bool:
        """Whether anything is mounted."""
        return bool(self._mounts)

    def close(self) -> None:
        """Let go of what is mounted: no directory that this object gave may be used any more."""
        if self._mounts is not None:
            self._mounts.close()

    def unpack(
        self,
        diff_id: str,
        open_tar: Callable[[], Readable],
        below: Sequence[str] = (),
        *,
        max_entries: int | None = None,
        large: bool = True,
        wait: Wait | None = None,
    ) -> str:
        """The directory of a layer, unpacked now unless it is already. A `large` one is worth an image, or a place of
        its own on the disk (`placement`). `wait` waits for another process that unpacks it.

        `open_tar` gives the uncompressed tar stream; it is called again where the layer has no place in an image. The
        streams are the caller's to close.
        Raises LayerError when the stream is malformed or when its digest is not `diff_id`.
        """
        with self.entries.making(diff_id, wait) as name:
            known = self.path(diff_id, below)
            if known is not None:
                return known
            with self.entries.temporary(name) as temporary:
                done = self._write_erofs(open_tar, temporary, max_entries) if large else None
                if done is None:
                    files = f"{temporary}/{DIRECTORY}"
                    if large:
                        from builder.filesystem.placement import make_apart

                        make_apart(files, 0o755)
                    else:
                        os.mkdir(files)
                        os.chmod(files, 0o755)  # whatever the umask
                    done = self._unpack(open_tar, files, below, max_entries, temporary)
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
                        write_new(f"{temporary}/{_IMPLICIT}", "\0".join(done.implicit))
                self.entries.keep(temporary, final)
                return self._at(final)

    def adopt(self, diff_id: str, upper: str | os.PathLike[str], below: Sequence[str] = ()) -> str:
        """Make a step's upper directory, which is on the same file system and no longer mounted, the snapshot of the
        layer that was made of it. The directory is gone afterwards. One that holds more than the layer, because files
        of it are hard links to such of the layers underneath, serves over these alone: `below` as for `path`. Raises
        StoreError."""
        with self.entries.making(diff_id) as name:
            known = self.path(diff_id, below)
            if known is not None and (below or not os.path.exists(f"{self.entries.path(name)}/{_IMPLICIT}")):
                remove_tree(os.fspath(upper))
                return known
            return self._take(os.fspath(upper), DIRECTORY, f"{name}-{self._stack_key(below)}" if below else name)

    @property
    def takes_erofs(self) -> bool:
        """Whether this process can mount what `adopt_erofs` makes a snapshot."""
        return self._mounts is not None and self._mounts.able

    def adopt_erofs(self, diff_id: str, image: str) -> None:
        """Make an image of a layer, a file on the same file system, its snapshot, unless it has one. Raises
        StoreError."""
        with self.entries.making(diff_id) as name:
            if not self.entries.complete(name):
                self._take(image, EROFS, name)

    def _take(self, path: str, form: str, name: str) -> str:
        """Make what has been written elsewhere the files of a snapshot, as DIRECTORY or EROFS."""
        shell = self.shells()
        try:
            os.rename(path, f"{shell}/{form}")
            self.entries.place(shell, name)
            return self._at(name)
        except OSError as error:
            raise StoreError(f"cannot become a snapshot: {error.strerror}", place=path) from error
        finally:
            remove_tree(shell)  # renamed by now, if all went well

    def _unpack(
        self, open_tar: Callable[[], Readable], files: str, below: Sequence[str], max_entries: int | None, beside: str
    ) -> Unpacked:
        from builder.filesystem.layered import LayeredTree
        from builder.filesystem.unpack import unpack

        with LayeredTree(below) as tree:
            return unpack(
                open_tar(), files, layer=True, below=tree if below else None, userxattr=self._userxattr,
                max_entries=max_entries, beside=beside,
            )  # fmt: skip

    def _write_erofs(
        self, open_tar: Callable[[], Readable], directory: str, max_entries: int | None
    ) -> Unpacked | None:
        """Unpack a layer as an image; None where there is none of it."""
        if not self.takes_erofs:
            return None
        from builder.filesystem.erofs_format import Unsuitable
        from builder.filesystem.erofs_layer import write_erofs

        path = f"{directory}/{EROFS}"
        try:
            return write_erofs(open_tar(), path, max_entries=max_entries)
        except Unsuitable:
            os.unlink(path)
            return None

    def _files(self, name: str) -> str | None:
        """The directory with the files of a complete snapshot; None if there is none, or if it cannot be mounted."""
        directory = self.entries.path(name)
        if not self.entries.complete(name):
            return None
        image = f"{directory}/{EROFS}"
        if not os.path.exists(image):
            return f"{directory}/{DIRECTORY}"
        return self._mounts.mount(name, image) if self._mounts is not None else None

    def _stack_key(self, below: Sequence[str]) -> str:
        """A short name for a stack of snapshots, which their own names stand for."""
        mounted = self._mounts.name_of if self._mounts is not None else lambda _: None
        names = "\0".join(mounted(path) or path.rsplit("/", 2)[-2] for path in below)
        return digests.hex_of(names.encode())[:32]

    def _at(self, name: str) -> str:
        """The files of a snapshot that has just got its name."""
        files = self._files(name)
        if files is None:
            raise StoreError("cannot be mounted any more", place=self.entries.path(name))
        return files
