"""Blocks that a blob takes over from an earlier one: the same bytes as if they were compressed again."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from builder.filesystem import kinds
from builder.filesystem.blocks import BlockIndex, Blocks, Damaged
from builder.filesystem.compress import LayerBlob, LayerSink
from builder.filesystem.cuts import cut
from builder.filesystem.tar import TarWriter
from builder.filesystem.tree import FileInfo

LEAST, MOST = 512 << 10, 1 << 20


def archive(sizes: Sequence[int], seed: int = 1) -> bytes:
    """A tar archive with a file of each size."""
    pieces: list[bytes] = []
    writer = TarWriter(pieces.append)
    chosen = random.Random(seed)
    for number, size in enumerate(sizes):
        content = chosen.randbytes(size // 2).hex().encode().ljust(size)
        writer.add(f"f{number:05}", FileInfo(kinds.FILE, 0o644, size=size), content=content)
    writer.close()
    return b"".join(pieces)


def lengths(data: bytes) -> list[int]:
    """The blocks that a stream is cut into, but for the last."""
    found, start = [], 0
    while (end := cut(data, start, LEAST, MOST)) >= 0:
        found.append(end - start)
        start = end
    return found


def written(directory: Path, data: bytes) -> tuple[LayerBlob, BlockIndex]:
    with LayerSink(directory, indexed=True, sync=False) as sink:
        sink.write(data)
        blob = sink.finish()
    assert sink.index is not None
    return blob, sink.index


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[tuple[bytes, LayerBlob, BlockIndex, int]]:
    data = archive([3000] * 2500)
    blob, index = written(tmp_path, data)
    descriptor = os.open(blob.path, os.O_RDWR)
    yield data, blob, index, descriptor
    os.close(descriptor)


def test_blocks_end_at_headers_and_where_they_would_be_too_long() -> None:
    small, big = lengths(archive([2000] * 3000)), lengths(archive([5_000_000]))
    assert len(small) > 8
    assert all(LEAST <= length <= MOST - 512 for length in small)
    assert big == [MOST] * 4


def test_a_cut_depends_on_nothing_behind_it() -> None:
    data = archive([2000] * 600)
    first = lengths(data)[0]
    assert cut(data[: first + 511], 0, LEAST, MOST) == -1
    assert cut(data[: first + 512], 0, LEAST, MOST) == first
    assert cut(b"", 0, LEAST, MOST) == -1


def test_after_a_file_that_grew_the_blocks_are_the_same() -> None:
    sizes = [3000] * 2500
    before = lengths(archive(sizes))
    sizes[3] = 3001 + 512 * 7
    after = lengths(archive(sizes))
    assert before[2:] == after[2:]


def test_the_index_finds_every_block(earlier: tuple[bytes, LayerBlob, BlockIndex, int]) -> None:
    data, blob, index, descriptor = earlier
    blocks = Blocks(descriptor, index)
    assert blocks.starts[-1] == len(data)
    assert len(blocks.plain) > 8
    for number in range(len(blocks.plain)):
        assert blocks.read(number, number + 1)[0] == data[blocks.starts[number] : blocks.starts[number + 1]]
    plain, packed = blocks.read(0, len(blocks.plain))
    assert plain == data
    assert packed in Path(blob.path).read_bytes()


def test_blocks_taken_over_give_the_same_blob(
    tmp_path: Path, earlier: tuple[bytes, LayerBlob, BlockIndex, int]
) -> None:
    data, blob, index, descriptor = earlier
    blocks = Blocks(descriptor, index)
    with LayerSink(tmp_path, indexed=True, sync=False) as sink:
        assert sink.take_over(blocks, 0, 1)
        sink.write(data[blocks.starts[1] : blocks.starts[2] + 512])
        assert not sink.take_over(blocks, 3, 4)  # a block would be too short
        sink.write(data[blocks.starts[2] + 512 : blocks.starts[3]])
        assert sink.take_over(blocks, 3, 7)
        assert sink.total == blocks.starts[7]
        sink.write(data[blocks.starts[7] :])
        again = sink.finish()
    assert msgspec.structs.replace(again, path="") == msgspec.structs.replace(blob, path="")
    assert sink.index == index


@pytest.mark.parametrize(("level", "compression"), [(1, "gzip"), (5, "gzip"), (None, "zstd")])
def test_blocks_of_another_coding_are_not_taken_over(
    tmp_path: Path, earlier: tuple[bytes, LayerBlob, BlockIndex, int], level: int | None, compression: str
) -> None:
    blocks = Blocks(earlier[3], earlier[2])
    with LayerSink(tmp_path, compression=compression, level=level, indexed=True) as sink:
        assert not sink.take_over(blocks, 0, 1)


def test_a_damaged_block_is_found(tmp_path: Path, earlier: tuple[bytes, LayerBlob, BlockIndex, int]) -> None:
    data, _, index, descriptor = earlier
    blocks = Blocks(descriptor, index)
    os.pwrite(descriptor, b"\0\1\2\3", 2_000_000)
    sink = LayerSink(tmp_path, indexed=True, sync=False)
    sink.take_over(blocks, 0, len(blocks.plain) - 1)
    sink.write(data[blocks.starts[-2] :])
    with pytest.raises(Damaged):
        sink.finish()
    os.ftruncate(descriptor, 100)
    with pytest.raises(Damaged):
        blocks.read(0, 1)


@pytest.mark.parametrize("wrong", [{"plain": b"123"}, {"packed": b"1234"}, {"checks": b""}])
def test_an_index_that_is_none(earlier: tuple[bytes, LayerBlob, BlockIndex, int], wrong: dict[str, bytes]) -> None:
    with pytest.raises(Damaged):
        Blocks(earlier[3], msgspec.structs.replace(earlier[2], **wrong))


def test_more_blocks_than_may_wait_are_taken_over(
    tmp_path: Path, earlier: tuple[bytes, LayerBlob, BlockIndex, int]
) -> None:
    """Between blocks that are written, in every order that the threads may come to them."""
    data, _, index, descriptor = earlier
    blocks = Blocks(descriptor, index)
    count = len(blocks.plain) - 1
    with LayerSink(tmp_path, indexed=True, sync=False, threads=3) as sink:
        for _ in range(20):
            for number in range(1, count):
                assert sink.take_over(blocks, number, number + 1)
            for number in range(1, count):
                sink.write(data[blocks.starts[number] : blocks.starts[number + 1]])
            assert sink.take_over(blocks, count - 1, count)
            sink.write(data[blocks.starts[1] : blocks.starts[2]])
        sink.write(data[blocks.starts[2] : blocks.starts[3]])
        plain = data[blocks.starts[1] : blocks.starts[count]]
        last = data[blocks.starts[count - 1] : blocks.starts[count]] + data[blocks.starts[1] : blocks.starts[2]]
        whole = (plain * 2 + last) * 20 + data[blocks.starts[2] : blocks.starts[3]]
        assert sink.finish().diff_id == f"sha256:{hashlib.sha256(whole).hexdigest()}"
