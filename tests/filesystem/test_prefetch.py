"""Files that are opened ahead: all of them in their order, and no descriptor that nobody closes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.filesystem import prefetch
from builder.filesystem.prefetch import NOTHING, prefetched

COUNT = 200


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    for number in range(COUNT):
        (tmp_path / f"f{number:03d}").write_text(f"file {number}")
    return [f"{tmp_path}/f{number:03d}" for number in range(COUNT)]


def open_file(name: str) -> int:
    return os.open(name, os.O_RDONLY)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def read(descriptor: int) -> str:
    return os.read(descriptor, 100).decode()


def test_items_come_in_their_order_with_their_files(names: list[str]) -> None:
    before = descriptors()
    found = [(name, read(descriptor)) for name, descriptor in prefetched(names, open_file)]
    assert found == [(name, f"file {number}") for number, name in enumerate(names)]
    assert descriptors() == before


def test_items_without_a_file_keep_their_place(names: list[str]) -> None:
    items = [name if number % 3 else "" for number, name in enumerate(names)]
    found = [
        (item, read(descriptor) if descriptor != NOTHING else "")
        for item, descriptor in prefetched(items, lambda item: open_file(item) if item else NOTHING)
    ]
    assert found == [(item, f"file {number}" if item else "") for number, item in enumerate(items)]


def test_a_bounded_number_is_open(names: list[str]) -> None:
    before, most = descriptors(), 0
    for _ in prefetched(names, open_file):
        most = max(most, descriptors() - before)
    assert 2 < most < 64


def test_what_nobody_got_is_closed_when_a_file_cannot_be_opened(names: list[str]) -> None:
    before = descriptors()
    os.remove(names[100])
    contents = (read(descriptor) for _, descriptor in prefetched(names, open_file))
    with pytest.raises(FileNotFoundError, match="f100"):
        list(contents)
    assert descriptors() == before


def test_what_nobody_got_is_closed_when_the_caller_stops(names: list[str]) -> None:
    before = descriptors()
    opened = prefetched(names, open_file)
    assert [read(next(opened)[1]) for _ in range(3)] == ["file 0", "file 1", "file 2"]
    assert descriptors() > before
    opened.close()
    assert descriptors() == before


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ([0, 0, 0, 0, 0, 0], 0),
        ([0, 8, 8, 8, 8, 8], 32),
        ([0, 8, 16, 24, 32, 40], 136),
        ([0, 0, 8, 16, 16, 24], 72),
    ],
)
def test_the_kernel_is_told_while_it_reads_from_a_disk(
    names: list[str], monkeypatch: pytest.MonkeyPatch, blocks: list[int], told: int
) -> None:
    """`blocks` is what was read so far, as each look finds it: after every 32 files."""
    import resource

    class Usage:
        def __init__(self, blocks: int) -> None:
            self.ru_inblock = blocks

    looks: Iterator[Usage] = map(Usage, blocks)
    advised = []
    monkeypatch.setattr(resource, "getrusage", lambda who: next(looks))
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: advised.append(arguments))
    assert len(list(prefetched(names, open_file))) == COUNT
    assert len(advised) == told


def test_a_file_system_that_takes_no_advice(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("no advice")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    monkeypatch.setattr(prefetch._Disk, "look", lambda disk: setattr(disk, "busy", True))
    assert len([read(descriptor) for _, descriptor in prefetched(names, open_file)]) == COUNT
