"""The image of a layer that is being written, for a command that will need its files: nothing is read again for it."""

from __future__ import annotations

from builder.filesystem.erofs_format import Unsuitable
from builder.filesystem.erofs_layer import ErofsLayer
from builder.filesystem.tree import FileInfo
from builder.solver.staging import Staged

_SECOND = 1_000_000_000


class ErofsCopy:
    """Writes an image to `path`, unless it turns out that it cannot be written, or that the layer has no place in one:
    then the layer is unpacked when it is needed, as others are."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.complete = False
        self._image: ErofsLayer | None = None
        try:
            self._image = ErofsLayer(path)
        except OSError:
            return

    def write(self, piece: bytes) -> None:
        """Write a part of the content of the file that is added next."""
        if self._image is not None:
            try:
                self._image.write(piece)
            except OSError:
                self.close()

    def add(self, entry: Staged) -> None:
        """Add an entry, of which the archive keeps whole seconds."""
        if self._image is None:
            return
        info = entry.info
        fraction = info.mtime_ns % _SECOND
        if fraction:
            info = FileInfo(
                info.kind, info.mode, info.uid, info.gid, info.size, info.mtime_ns - fraction, info.link, info.device
            )
        try:
            self._image.add(entry.path, info, entry.xattrs, entry.hardlink)
        except (Unsuitable, OSError):
            self.close()

    def finish(self) -> None:
        """Complete the image; `complete` says whether there is one."""
        if self._image is not None:
            try:
                self._image.finish()
                self.complete = True
            except (Unsuitable, OSError):
                return
            finally:
                self.close()

    def close(self) -> None:
        """Write no more."""
        if self._image is not None:
            self._image.close()
            self._image = None
