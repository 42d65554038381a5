"""EROFS images written from the first byte to the last: a tree as one file that the kernel can mount.

Making such a file costs a fraction of making all the files that it holds, and so does removing it. Since an inode's
number is its place, inodes and data may alternate: nothing is moved, and nothing but the directories is kept in memory,
as their names and two numbers for each.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping

from builder.filesystem import erofs_format as erofs
from builder.filesystem import kinds
from builder.filesystem.erofs_format import BLOCK, INODE_SIZE, ROOT_AT, SLOT, TYPES, Unsuitable
from builder.filesystem.tree import FileInfo

_REGION = 256 << 10  # bytes of inodes that are written at once, between the data
_BUFFER = 1 << 20  # bytes of data
_LONGEST_NAME = 255  # bytes: NAME_MAX
_LONGEST_LINK = 4095
_MOST_NAMES = 1 << 17  # of one directory: to finish it takes some 280 bytes of memory for each
_ROOM = 128  # bytes for what a directory may get beyond its first attributes
_TYPE_BITS = 4
_TYPE = (1 << _TYPE_BITS) - 1
_FILE, _DIRECTORY, _SYMLINK = TYPES[kinds.FILE], TYPES[kinds.DIRECTORY], TYPES[kinds.SYMLINK]


class Directory:
    """A directory, whose inode is written when all of its entries are known."""

    def __init__(self, number: int, parent: Directory | None, place: int, room: int) -> None:
        self.number = number  # among all directories
        self.parent = parent or self
        self.place = place  # of its inode, in bytes
        self.room = room  # for attributes, in bytes
        self.info = FileInfo(kinds.DIRECTORY, 0o755)
        self.attributes = b""
        self.subdirectories = 0
        self.names = bytearray()  # each ends with a slash
        self.inodes = array("Q")  # of each name the inode, or the directory's number, and the type
        self._index: dict[bytes, int] = {}  # the first names, by their places

    def add(self, name: bytes, value: int) -> None:
        if len(name) > _LONGEST_NAME or len(self.inodes) == _MOST_NAMES:
            raise Unsuitable
        self.names += name
        self.names += b"/"
        self.inodes.append(value)

    def find(self, name: bytes) -> int | None:
        """What was added under a name."""
        known = len(self._index)
        if known < len(self.inodes):  # names are looked for where hard links are, and there more than once
            names = bytes(self.names).split(b"/")[known:-1]
            self._index.update(zip(names, range(known, known + len(names)), strict=True))
            if len(self._index) < len(self.inodes):  # one of them is there twice
                raise Unsuitable
        position = self._index.get(name)
        return None if position is None else self.inodes[position]

    def entries(self) -> list[tuple[bytes, int]]:
        return sorted(zip(bytes(self.names).split(b"/")[:-1], self.inodes, strict=True))


class ErofsWriter:
    """Writes an image into an empty file, `descriptor`, which stays the caller's. Names are bytes, each used once in
    its directory. Raises Unsuitable for what an image cannot hold, and OSError; then the file is worth nothing."""

    def __init__(self, descriptor: int) -> None:
        self._file = descriptor
        self._end = BLOCK  # where the next block of data goes, or the next region of inodes
        self._region = bytearray(ROOT_AT)
        self._region_at = 0
        self._region_size = BLOCK
        self._data = bytearray()  # data that is not in the file yet: whole blocks, and what is written of the next file
        self._data_at = BLOCK
        self._size = 0  # bytes that were written of the next file
        self._inodes = 0
        self._links: dict[int, int] = {}
        self._directories: list[Directory] = []
        self.root = self._make_directory(None, BLOCK - ROOT_AT - INODE_SIZE)

    def add_directory(self, parent: Directory, name: bytes, info: FileInfo, xattrs: Mapping[str, bytes]) -> Directory:
        """Add an empty directory."""
        packed = erofs.attributes(xattrs)
        made = self._make_directory(parent, len(packed) + _ROOM)
        made.info, made.attributes = info, packed
        parent.add(name, made.number << _TYPE_BITS | _DIRECTORY)
        parent.subdirectories += 1
        return made

    def change_directory(self, directory: Directory, info: FileInfo, xattrs: Mapping[str, bytes]) -> None:
        """Give a directory another owner, mode and time, and other attributes if there is room for them."""
        packed = erofs.attributes(xattrs)
        if len(packed) > directory.room:
            raise Unsuitable
        directory.info, directory.attributes = info, packed

    def write(self, piece: bytes | memoryview) -> None:
        """Write a part of the content of the file that is added next."""
        self._data += piece
        self._size += len(piece)
        if len(self._data) >= _BUFFER:
            self._write_data()

    def add_file(self, parent: Directory, name: bytes, info: FileInfo, xattrs: Mapping[str, bytes]) -> None:
        """Add anything but a directory. A regular file's content is what was written since the last."""
        packed = erofs.attributes(xattrs) if xattrs else b""
        kind = info.kind
        if kind == kinds.FILE:
            assert self._size == info.size
            inode = self._regular(info, packed)
        elif kind == kinds.SYMLINK:
            target = info.link.encode("utf-8", "surrogateescape")
            if not 0 < len(target) <= _LONGEST_LINK:
                raise Unsuitable
            self.write(target)
            inode = self._regular(info, packed)
        else:
            place = self._allocate(INODE_SIZE + len(packed))
            inode = self._put(place, erofs.inode(info, 0, erofs.PLAIN, 0, packed, 1, self._inodes), packed, b"")
        parent.add(name, inode << _TYPE_BITS | TYPES[kind])

    def add_link(self, parent: Directory, name: bytes, directory: Directory, target: bytes, info: FileInfo) -> None:
        """Add another name for a regular file or a symbolic link. Unsuitable if it is neither, or if `info` gives the
        file another owner, mode or time; for a link none of them counts."""
        found = directory.find(target)
        if found is None:
            raise Unsuitable
        number, kind = found >> _TYPE_BITS, found & _TYPE
        if kind != _SYMLINK and not (kind == _FILE and erofs.is_like(self._read_inode(number), info)):
            raise Unsuitable
        self._links[number] = self._links.get(number, 1) + 1
        parent.add(name, found)

    def finish(self) -> None:
        """Write what is left: the directories, and the superblock, without which nothing of it is an image."""
        written = []
        for directory in self._directories:
            blocks = self._entries(directory)
            self.write(blocks)
            written.append((self._end_data(self._size), len(blocks)))
        self._write_region()
        self._write_data()
        for directory, (address, size) in zip(self._directories, written, strict=True):
            inode = erofs.inode(
                directory.info, size, erofs.PLAIN, address, directory.attributes, 2 + directory.subdirectories,
                directory.number,
            )  # fmt: skip
            self._pwrite(inode + directory.attributes, directory.place)
        for number, links in self._links.items():
            self._pwrite(erofs.with_links(self._read_inode(number), links), number * SLOT)
        os.ftruncate(self._file, self._end)
        self._pwrite(erofs.superblock(self._end // BLOCK, self._inodes), erofs.SUPERBLOCK_AT)

    def _make_directory(self, parent: Directory | None, room: int) -> Directory:
        place = self._allocate(INODE_SIZE + room)
        self._region += bytes(INODE_SIZE + room)  # written at last
        made = Directory(len(self._directories), parent, place, room)
        self._directories.append(made)
        self._inodes += 1
        return made

    def _entries(self, directory: Directory) -> bytes:
        entries = [(b".", directory.place // SLOT, _DIRECTORY), (b"..", directory.parent.place // SLOT, _DIRECTORY)]
        for name, value in directory.entries():
            number, kind = value >> _TYPE_BITS, value & _TYPE
            entries.append((name, self._directories[number].place // SLOT if kind == _DIRECTORY else number, kind))
        entries.sort()  # what sorts before a point is rare: this looks at each once
        return erofs.directory_blocks(entries)

    def _regular(self, info: FileInfo, packed: bytes) -> int:
        """Write the inode of what was written, whose number is returned."""
        size = self._size
        header = INODE_SIZE + len(packed)
        beside = size % BLOCK
        if header + beside > BLOCK:
            beside = 0
        tail = b""
        if beside:
            tail = bytes(self._data[-beside:])
            del self._data[-beside:]
        address = self._end_data(size - beside)
        place = self._allocate(header + beside)
        layout = erofs.INLINE if beside else erofs.PLAIN
        return self._put(place, erofs.inode(info, size, layout, address, packed, 1, self._inodes), packed, tail)

    def _end_data(self, size: int) -> int:
        """Give what was written its blocks; `size` bytes of it are to have some. The number of the first."""
        address = self._end // BLOCK if size else 0
        self._data += bytes(-size % BLOCK)
        self._end += (size + BLOCK - 1) & -BLOCK
        self._size = 0
        return address

    def _put(self, place: int, inode: bytes, packed: bytes, tail: bytes) -> int:
        self._inodes += 1
        self._region += inode
        self._region += packed
        self._region += tail
        return place // SLOT

    def _allocate(self, size: int) -> int:
        """A place for an inode and what follows it, of a block at most and all in one. That is where the region ends
        now: who asked appends as many bytes."""
        region = self._region
        at = (len(region) + SLOT - 1) & -SLOT
        if at % BLOCK + size > BLOCK:
            at = (at + BLOCK - 1) & -BLOCK
        if at + size > self._region_size:
            self._write_region()
            self._write_data()
            self._region_at, self._region_size, self._region = self._end, _REGION, bytearray()
            self._end += _REGION
            self._data_at = self._end
            return self._region_at
        region += bytes(at - len(region))
        return self._region_at + at

    def _write_data(self) -> None:
        """Write the data of whole blocks."""
        whole = len(self._data) & -BLOCK
        self._pwrite(memoryview(self._data)[:whole], self._data_at)
        self._data_at += whole
        self._data = self._data[whole:]

    def _write_region(self) -> None:
        self._pwrite(self._region, self._region_at)

    def _read_inode(self, number: int) -> bytes:
        at = number * SLOT - self._region_at
        if 0 <= at < len(self._region):
            return bytes(self._region[at : at + INODE_SIZE])
        return os.pread(self._file, INODE_SIZE, number * SLOT)

    def _pwrite(self, data: bytes | bytearray | memoryview, at: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file, left, at)
            left, at = left[written:], at + written
