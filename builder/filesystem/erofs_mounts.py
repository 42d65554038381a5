"""The images that one process has mounted, each once: directories that lead through its descriptors."""

from __future__ import annotations

import errno
import os
import threading
from functools import cached_property

from builder.errors import StoreError

_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ErofsMounts:
    """Mounts images that lie below `directory`, under names. Several threads may use one object."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptors: dict[str, int] = {}  # by the image's name
        self._names: dict[str, str] = {}  # by the mount's directory
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are mounted."""
        return len(self._descriptors)

    @cached_property
    def able(self) -> bool:
        """Whether images can be mounted here."""
        from builder.filesystem.erofs_mount import is_able

        try:
            os.makedirs(self._directory, exist_ok=True)
        except OSError:
            return False
        return is_able(self._directory)

    def mount(self, name: str, image: str) -> str | None:
        """The directory with the files of an image, for this process and those that it starts; None where images cannot
        be mounted, or this one is damaged. It serves until `close`, whatever becomes of the file. Raises StoreError
        where the system lacks what it takes."""
        with self._lock:
            descriptor = self._descriptors.get(name)
            if descriptor is None:
                if not self.able:
                    return None
                from builder.filesystem.erofs_mount import mount_erofs

                try:
                    descriptor = self._descriptors[name] = mount_erofs(image)
                except OSError as error:
                    if error.errno not in _SCARCE:
                        return None
                    raise StoreError(
                        f"cannot be mounted: {error.strerror}", place=image,
                        remedy="allow more open files (ulimit -n), or free memory",
                    ) from error  # fmt: skip
            # The processes of steps are in PID namespaces of their own, but see the same /proc.
            directory = f"/proc/{os.readlink('/proc/self')}/fd/{descriptor}"
            self._names[directory] = name
            return directory

    def name_of(self, directory: str) -> str | None:
        """The name of the image that was mounted as a directory, if that is one."""
        return self._names.get(directory)

    def close(self) -> None:
        """Unmount all: what is open of them stays so."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()
            self._names.clear()

    __del__ = close
