"""`builder fsck` and unpacked layers that are images of file systems."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from builder.filesystem.snapshot_entries import EROFS
from builder.store import check_snapshots
from tests.support.builds import Cli, busybox_context, needs_sandbox
from tests.support.checks import CHECK, DEEP, REPAIR, run

pytestmark = needs_sandbox


@pytest.fixture
def image(cli: Cli, tmp_path: Path, mounts_erofs: None) -> Path:
    """The image of the layer with busybox."""
    cli.build("-t", "x", busybox_context(tmp_path / "ctx", "RUN echo a > /c\n"))
    (found,) = (cli.root / "snapshots").glob(f"*/{EROFS}")
    assert run(cli, DEEP).problems == ()
    return found


@pytest.mark.parametrize("size", [0, 1 << 16])
def test_an_image_that_cannot_be_mounted(cli: Cli, image: Path, size: int) -> None:
    os.truncate(image, size)
    (problem,) = run(cli).remaining()
    assert problem.area == "snapshot"
    assert problem.place == image.parent.name
    assert run(cli, REPAIR).problems[0].repair
    assert not image.exists()
    assert run(cli, DEEP).problems == ()


def test_what_its_metadata_says(cli: Cli, image: Path) -> None:
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = data.find(b"busybox")
        data[at : at + 7] = b"buzzbox"
    (problem,) = run(cli).remaining()
    assert problem.cause == "bin/cat: it leads to 'buzzbox', not to 'busybox'"


def test_another_content_is_found_where_contents_are_read(cli: Cli, image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"damage")
    assert run(cli).problems == ()
    (problem,) = run(cli, DEEP).remaining()
    assert problem.cause == "bin/busybox: its content is another"


def test_where_it_cannot_be_mounted_it_is_not_looked_at(cli: Cli, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_snapshots, "is_able", lambda directory: False)
    os.truncate(image, 0)
    assert run(cli, CHECK).problems == ()
