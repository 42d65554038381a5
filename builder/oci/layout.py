"""An OCI image layout on disk: `oci-layout`, `index.json` and `blobs/sha256/…`, written so that a crash loses nothing.

A blob is written to a temporary file, hashed while it is written, synced and renamed; `index.json` is replaced in one
rename under a lock. Source: image-spec `image-layout.md`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

from builder.errors import NO_ROOM, StoreError, store_error
from builder.oci.digests import is_hex, is_sha256
from builder.oci.spec import Descriptor, Index, decode, digest_of, encode

LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_EMPTY_INDEX = encode(Index(schema_version=2, manifests=[]))


class Layout:
    """The layout below `path`; `temporary` is a directory on the same file system for unfinished files.

    `pin` is told of each digest before its blob is looked for or written, `settle` makes sure that all blobs outlive a
    power failure before the list of manifests changes.
    """

    def __init__(self, path: str, temporary: str | None = None) -> None:
        self.pin: Callable[[str], object] = _no_pin
        self.settle: Callable[[], object] = _settled
        self.path = path
        self.temporary = temporary or os.path.join(path, "tmp")
        self.blobs = os.path.join(path, "blobs", "sha256")

    def create(self) -> None:
        """Make the layout, or what one that another tool made lacks to be written to. Raises StoreError."""
        try:
            complete = os.path.exists(os.path.join(self.path, "oci-layout"))
            if complete and os.path.isdir(self.temporary) and os.path.isdir(self.blobs):
                return
            if complete:
                self.index()  # nothing is put into what turns out to be no layout
            os.makedirs(self.blobs, exist_ok=True)
            os.makedirs(self.temporary, exist_ok=True)
            if complete:
                return
            held = self._hold()
            try:
                for name, data in (("index.json", _EMPTY_INDEX), ("oci-layout", LAYOUT_FILE)):
                    self._write({os.path.join(self.path, name): data}, only_new=True)
            finally:
                os.close(held)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise store_error("cannot create the store", error, self.path) from error
            raise StoreError(
                f"cannot create the store: {error}", place=self.path, remedy="choose a writable place with --root"
            ) from error

    @contextmanager
    def writing(self) -> Iterator[Callable[[], bool]]:
        """Write to a layout that is no store, beside others that do: the last one takes away the directory for
        unfinished files. Given is what tells, when all is written, whether nobody else is writing: if so, others wait
        until the block ends. Raises StoreError."""
        self.create()
        try:
            held = self._hold()
        except OSError as error:
            raise store_error("cannot be written", error, self.path) from error

        def is_alone() -> bool:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            return True

        try:
            yield is_alone
        finally:
            if is_alone():
                with suppress(OSError):
                    os.rmdir(self.temporary)
            os.close(held)

    def _hold(self) -> int:
        """Have the directory for unfinished files, and a shared lock on it: who takes it away locks it alone."""
        while True:
            os.makedirs(self.temporary, exist_ok=True)
            try:
                descriptor = os.open(self.temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # it was taken away just now
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self.temporary)):
                    return descriptor
            os.close(descriptor)

    def blob_path(self, digest: str) -> str:
        """Where the blob `digest` lies, or would lie. Raises StoreError for anything but a SHA-256 digest."""
        if not is_sha256(digest):
            raise StoreError(f"unsupported digest {digest!r}", remedy="only sha256 digests are kept")
        self.pin(digest)
        return os.path.join(self.blobs, digest.removeprefix("sha256:"))

    def has(self, digest: str) -> bool:
        return os.path.exists(self.blob_path(digest))

    def digests(self) -> list[str]:
        """All blobs that are here, sorted."""
        names = os.listdir(self.blobs)
        return sorted(f"sha256:{name}" for name in names if is_hex(name, 64))

    def read(self, digest: str) -> bytes:
        """A small blob's bytes, verified. Raises StoreError."""
        with self.open(digest) as file:
            data = file.read()
        if digest_of(data) != digest:
            raise StoreError(f"blob {digest} is damaged", place=self.blob_path(digest), remedy="run 'builder fsck'")
        return data

    def open(self, digest: str) -> BinaryIO:
        """A blob for reading. Raises StoreError."""
        try:
            return open(self.blob_path(digest), "rb")
        except OSError as error:
            raise StoreError(
                f"blob {digest} is missing: {error.strerror}", place=self.path, remedy="run 'builder fsck'"
            ) from error

    def put(self, data: bytes) -> str:
        """Write a small blob; returns its digest."""
        return self.put_all((data,))[0]

    def put_all(self, blobs: Sequence[bytes]) -> list[str]:
        """Write small blobs, which wait for the disk together; returns their digests."""
        digests = [digest_of(data) for data in blobs]
        files = dict(zip(map(self.blob_path, digests), blobs, strict=True))
        new = {path: data for path, data in files.items() if not os.path.exists(path)}
        if new:
            self._write(new)
        return digests

    def adopt(self, temporary: str, digest: str, *, sync: bool = True) -> None:
        """Make a finished, synced temporary file the blob `digest`; with `sync=False` the caller answers for flushing
        the file and the directory `blobs`."""
        path = self.blob_path(digest)
        try:
            os.chmod(temporary, 0o644)
            os.rename(temporary, path)
            if sync:
                sync_directory(self.blobs)
        except OSError as error:
            raise store_error(f"cannot store blob {digest}", error, self.path) from error

    def receive(self, source: BinaryIO, digest: str) -> None:
        """Write the blob `digest`, of any size, from where it is read. Raises OSError and StoreError."""
        from shutil import copyfileobj

        temporary = os.path.join(self.temporary, f"blob.{os.urandom(6).hex()}")
        try:
            with open(temporary, "xb") as file:
                copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            self.adopt(temporary, digest)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def index(self) -> Index:
        """The images of the layout. Raises StoreError."""
        path = os.path.join(self.path, "index.json")
        try:
            with open(path, "rb") as file:
                return decode(file.read(), Index, path)
        except OSError as error:
            raise StoreError(f"not an OCI image layout: {error.strerror}", place=path) from error

    @contextmanager
    def changing(self) -> Iterator[list[Descriptor]]:
        """Change the list of manifests: the list given is written back unless the block raises."""
        with self._locked():
            index = self.index()
            manifests = list(index.manifests)
            before = list(manifests)
            yield manifests
            if manifests != before:
                self.settle()
                changed = Index(schema_version=2, manifests=manifests, annotations=index.annotations)
                self._write({os.path.join(self.path, "index.json"): encode(changed)})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the layout. What is locked is the file that every layout has and nobody replaces."""
        try:
            descriptor = os.open(os.path.join(self.path, "oci-layout"), os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise store_error("cannot be changed", error, self.path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, files: Mapping[str, bytes], *, only_new: bool = False) -> None:
        """Write files of one directory whole, by their paths, each in the place of what is there; with `only_new` only
        if nothing is. All are on the disk before the first gets its name."""
        place = _place_new if only_new else os.rename
        written: dict[str, tuple[str, int]] = {}
        path = ""
        try:
            try:
                for path, data in files.items():
                    written[path] = self._write_temporary(path, data)
                for _, descriptor in written.values():
                    os.fsync(descriptor)
                for path, (temporary, _) in written.items():
                    place(temporary, path)
            except BaseException:
                for temporary, _ in written.values():
                    if os.path.exists(temporary):
                        os.unlink(temporary)
                raise
            finally:
                for _, descriptor in written.values():
                    os.close(descriptor)
            sync_directory(os.path.dirname(path))
        except OSError as error:
            raise store_error("cannot be written", error, path) from error

    def _write_temporary(self, path: str, data: bytes) -> tuple[str, int]:
        """A new file that is to become `path`, and its descriptor, which stays open."""
        temporary = os.path.join(self.temporary, f"{os.path.basename(path)}.{os.getpid()}.{os.urandom(4).hex()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        except BaseException:
            os.close(descriptor)
            os.unlink(temporary)
            raise
        return temporary, descriptor


def _no_pin(digest: str) -> None:
    """Without a lease nothing is pinned."""


def _settled() -> None:
    """Whoever writes blobs here flushes each."""


def _place_new(temporary: str, path: str) -> None:
    """Give a file its name unless another process was faster: what that one wrote may be in use already."""
    with suppress(FileExistsError):
        os.link(temporary, path)
    os.unlink(temporary)


def sync_directory(path: str) -> None:
    """Make a rename in a directory outlive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
