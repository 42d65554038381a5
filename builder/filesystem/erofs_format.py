"""What an EROFS image consists of, packed: superblock, inodes, attributes, directories.

The format is the kernel's (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h), and of it the oldest part, which
every reader knows: blocks of 4 KiB, extended inodes of 64 bytes with their attributes behind them, data that is neither
compressed nor shared.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo

BLOCK = 4096
SLOT = 32
"""Bytes. An inode begins at a multiple of it, and its number counts them from the begin of the image."""
INODE_SIZE = 64
SUPERBLOCK_AT = 1024
ROOT_AT = SUPERBLOCK_AT + 128
TYPES = {
    kinds.FILE: 1, kinds.DIRECTORY: 2, kinds.CHARACTER: 3, kinds.WHITEOUT: 3, kinds.BLOCK: 4, kinds.FIFO: 5,
    kinds.SYMLINK: 7,
}  # fmt: skip

PLAIN = 0
"""All data is in blocks of its own."""
INLINE = 2
"""What does not fill a block follows the inode and its attributes, in the block where they end."""

# magic, checksum, compatible features, bits of a block's size, slots, root inode, inodes, time and nanoseconds, blocks,
# first block of the inodes and of shared attributes
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII80x")
_MAGIC = 0xE0F5E1E2
# format, attributes, mode, -, size, first block or device, number, uid, gid, seconds, nanoseconds, links
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_EXTENDED = 1
_ENTRY = struct.Struct("<QHBB")  # inode, place of the name in the block, type, -
_ATTRIBUTES_SIZE = 12
_ATTRIBUTE = struct.Struct("<BBH")  # bytes of the name, prefix, bytes of the value
_PREFIXES = {"user.": 1, "trusted.": 4, "security.": 6}
_MODES = {
    kinds.FILE: 0o100000, kinds.DIRECTORY: 0o040000, kinds.SYMLINK: 0o120000, kinds.CHARACTER: 0o020000,
    kinds.BLOCK: 0o060000, kinds.FIFO: 0o010000, kinds.WHITEOUT: 0o020000,
}  # fmt: skip
_LINK_MODE = 0o777  # every symbolic link has it
_PERMISSIONS = 0o7777


class Unsuitable(Exception):
    """This has no place in an image of this form."""


def superblock(blocks: int, inodes: int) -> bytes:
    """The superblock of an image whose root's inode is at ROOT_AT."""
    return _SUPERBLOCK.pack(_MAGIC, 0, 0, BLOCK.bit_length() - 1, 0, ROOT_AT // SLOT, inodes, 0, 0, blocks, 0, 0)


def inode(
    info: FileInfo, size: int, layout: int, address: int, attributes: bytes = b"", links: int = 1, number: int = 0
) -> bytes:
    """An inode: `address` is the number of the first block of its data, `attributes` what follows it. Raises Unsuitable
    for an owner, a size or a device that does not fit."""
    kind = info.kind
    mode = _MODES[kind] | (_LINK_MODE if kind == kinds.SYMLINK else info.mode)
    if kind == kinds.CHARACTER or kind == kinds.BLOCK:
        major, minor = info.device
        address = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12  # linux/kdev_t.h, new_encode_dev
    count = (len(attributes) - _ATTRIBUTES_SIZE) // 4 + 1 if attributes else 0
    seconds, nanoseconds = divmod(info.mtime_ns, 1_000_000_000)
    try:
        return _INODE.pack(
            _EXTENDED | layout << 1, count, mode, 0, size, address, number & 0xFFFF_FFFF, info.uid, info.gid, seconds,
            nanoseconds, links,
        )  # fmt: skip
    except struct.error:
        raise Unsuitable from None


def is_like(packed: bytes, info: FileInfo) -> bool:
    """Whether an inode says of owner, mode and time what `info` does."""
    _, _, mode, _, _, _, _, uid, gid, seconds, nanoseconds, _ = _INODE.unpack(packed)
    time = seconds * 1_000_000_000 + nanoseconds
    return (mode & _PERMISSIONS, uid, gid, time) == (info.mode, info.uid, info.gid, info.mtime_ns)


def with_links(packed: bytes, links: int) -> bytes:
    """An inode with another number of names."""
    try:
        return _INODE.pack(*_INODE.unpack(packed)[:-1], links)
    except struct.error:
        raise Unsuitable from None


def attributes(xattrs: Mapping[str, bytes]) -> bytes:
    """Extended attributes as they follow an inode, b"" for none. Those of `system.` are lists of access rights, of
    which the kernel keeps a form of its own: Unsuitable. Others that it does not know are left out."""
    parts = [bytes(_ATTRIBUTES_SIZE)]
    for name, value in xattrs.items():
        prefix = name[: name.find(".") + 1]
        if prefix == "system.":
            raise Unsuitable
        rest = name[len(prefix) :].encode("utf-8", "surrogateescape")
        if prefix not in _PREFIXES or not rest:
            continue
        if len(rest) > 255 or len(value) > 0xFFFF:
            raise Unsuitable
        entry = _ATTRIBUTE.pack(len(rest), _PREFIXES[prefix], len(value)) + rest + value
        parts.append(entry.ljust((len(entry) + 3) & -4, b"\0"))
    packed = b"".join(parts) if len(parts) > 1 else b""
    if len(packed) > BLOCK // 2:
        raise Unsuitable
    return packed


def directory_blocks(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    """The blocks of a directory: of its entries, `.` and `..` among them and all sorted by their names' bytes, the
    name, the inode's number and one of TYPES. Unsuitable if two have one name."""
    blocks: list[bytes] = []
    first = used = 0
    before = b""
    for position, (name, _, _) in enumerate(entries):
        if name == before:
            raise Unsuitable
        before = name
        size = _ENTRY.size + len(name)
        if used + size > BLOCK:
            blocks.append(_directory_block(entries[first:position]))
            first, used = position, 0
        used += size
    blocks.append(_directory_block(entries[first:]))
    return b"".join(blocks)


def _directory_block(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    """One block: all entries, then all names. The last name ends with the block or with a zero."""
    at = len(entries) * _ENTRY.size
    packed = []
    for name, number, kind in entries:
        packed.append(_ENTRY.pack(number, at, kind, 0))
        at += len(name)
    return b"".join((*packed, *(name for name, _, _ in entries))).ljust(BLOCK, b"\0")
