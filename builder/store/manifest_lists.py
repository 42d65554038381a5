"""Manifest lists that are being put together: Docker's `manifest create`, `annotate` and `push` work on them.

Each is a file below ROOT/manifest-lists, with its name in it and all manifests that it lists as they were fetched, so
that no collection of the store needs to know of them. Files are replaced in one rename.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from builder.errors import StoreError
from builder.oci.layout import sync_directory
from builder.oci.reference import Reference
from builder.oci.spec import Descriptor
from builder.store.store import Store


class Listed(msgspec.Struct, frozen=True):
    """A manifest of a list: the full reference under which it was named, and its bytes. The descriptor's platform is
    what the list says of it."""

    reference: str
    descriptor: Descriptor
    data: bytes


class _File(msgspec.Struct, frozen=True):
    name: str
    manifests: list[Listed]


class ManifestLists:
    """The lists of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._directory = os.path.join(store.root, "manifest-lists")

    def get(self, name: Reference) -> list[Listed] | None:
        """The manifests of a list in the order in which they were added, None if there is no such list."""
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                return msgspec.json.decode(file.read(), type=_File).manifests
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot be read: {error.strerror}", place=path) from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(f"the manifest list is damaged: {error}", place=path, remedy="remove the file") from error

    @contextmanager
    def changing(self, name: Reference) -> Iterator[list[Listed]]:
        """Change a list, which may be a new one: what is given is written back, unless the block raises."""
        with self._store.lock(f"manifest-list-{self._key(name)}"):
            manifests = self.get(name) or []
            yield manifests
            self._write(self._path(name), msgspec.json.encode(_File(str(name), manifests)))

    def remove(self, name: Reference) -> bool:
        """Remove a list; whether there was one. Raises StoreError."""
        path = self._path(name)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"cannot be removed: {error.strerror}", place=path) from error
        return True

    def _key(self, name: Reference) -> str:
        return hashlib.sha256(str(name).encode()).hexdigest()

    def _path(self, name: Reference) -> str:
        return os.path.join(self._directory, f"{self._key(name)}.json")

    def _write(self, path: str, data: bytes) -> None:
        with self._store.scratch() as scratch:
            temporary = os.path.join(scratch, "list")
            try:
                os.makedirs(self._directory, exist_ok=True)
                with open(temporary, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(temporary, path)
                sync_directory(self._directory)
            except OSError as error:
                raise StoreError(f"cannot write: {error.strerror}", place=path) from error
