"""The archive of a repeated build: written again as it was, or not at all."""

from __future__ import annotations

import os
import tarfile
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.api.repeat import archive as repeated_archive
from builder.api.repeat import build as noting
from builder.api.repeat.question import ARCHIVE
from builder.errors import StoreError
from builder.export.destination import destination
from builder.export.output import Output
from tests.api.repeat.asking import LOG, Asking, build_with, options_with


@pytest.fixture(params=["oci", "docker"])
def archived(asking: Asking, request: pytest.FixtureRequest) -> Asking:
    asking.options = options_with(
        asking.options, outputs=(Output(type=request.param, dest=str(asking.archive), names=()),)
    )
    asking.build()
    asking.build()
    return asking


def test_an_archive_is_written_again(archived: Asking) -> None:
    expected = archived.archive.read_bytes()
    archived.archive.unlink()
    assert archived.answered()
    assert archived.archive.read_bytes() == expected
    archived.archive.write_bytes(b"another")
    assert archived.answered()
    assert archived.archive.read_bytes() == expected
    with tarfile.open(archived.archive) as tar:
        assert any(name.startswith("blobs/sha256/") for name in tar.getnames())
    assert [path.name for path in archived.root.parent.glob("image.tar*")] == ["image.tar"]


def test_an_archive_on_another_file_system(asking: Asking) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if os.stat(elsewhere).st_dev == asking.root.parent.stat().st_dev:
            pytest.skip("needs two file systems")
        archive = Path(elsewhere, "image.tar")
        asking.options = options_with(asking.options, outputs=(Output(type="oci", dest=str(archive)),))
        asking.build()
        asking.build()
        expected = archive.read_bytes()
        archive.unlink()
        assert asking.answered()
        assert archive.read_bytes() == expected


def test_what_is_no_ordinary_file_takes_the_whole_way(archived: Asking) -> None:
    archived.archive.unlink()
    archived.archive.symlink_to("elsewhere")
    assert not archived.answered()
    assert archived.archive.is_symlink()


def test_an_archive_that_cannot_be_written_takes_the_whole_way(archived: Asking) -> None:
    archived.archive.unlink()
    archived.archive.mkdir()
    before = len(list((archived.root / "builds").iterdir()))
    assert not archived.answered()
    assert len(list((archived.root / "builds").iterdir())) == before


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "longer", "of another state"])
def test_a_damaged_list_of_parts(archived: Asking, damage: str) -> None:
    parts = Path(archived.ask().note + ARCHIVE)
    data = parts.read_bytes()
    if damage == "gone":
        parts.unlink()
    else:
        parts.write_bytes(
            {"empty": b"", "cut": data[:-1], "longer": data + b"x", "of another state": b"0" + data}[damage]
        )
    archived.archive.unlink()
    assert not archived.answered()
    assert not archived.archive.exists()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_null(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [make_fifo, link_to_null])
def test_what_is_no_ordinary_file_is_not_noted(asking: Asking, make: Callable[[Path], None]) -> None:
    """A pipe would have to be waited for."""
    options = options_with(asking.options, outputs=(Output(type="oci", dest=str(asking.archive)),))
    asking.build()
    result = build_with(options)
    asking.archive.unlink()
    make(asking.archive)
    noting_it = threading.Thread(target=noting.remember, args=(asking.ask(), options, result, "", LOG), daemon=True)
    noting_it.start()
    noting_it.join(20)
    assert not noting_it.is_alive()
    assert not asking.answered()


def test_what_is_no_archive_has_no_parts(tmp_path: Path) -> None:
    with open("/dev/null", "rb") as file, pytest.raises(ValueError, match="no archive"):
        repeated_archive.parts_of(file, str(tmp_path))


def test_a_link_that_others_left_is_not_written_through(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)  # as if somebody guessed the temporary name
    victim = asking.root.parent / "victim"
    victim.write_text("theirs")
    asking.archive.with_name(".builder-00000000.part").symlink_to(victim)
    with pytest.raises(OSError, match="exists"):
        repeated_archive.write(str(asking.archive), [b"ours"], "")
    with pytest.raises(StoreError, match="exists"), destination(str(asking.archive)) as file:
        file.write(b"ours")
    assert victim.read_text() == "theirs"


def test_an_archive_that_is_another_s_is_not_noted(asking: Asking) -> None:
    """Another build wrote there before it was looked at."""
    options = options_with(asking.options, outputs=(Output(type="oci", dest=str(asking.archive)),))
    asking.build()
    build_with(options, target="one", tags=("y",))  # so that nothing but the archive changes another time
    asked = asking.ask()
    result = build_with(options)
    own = asking.archive.read_bytes()
    assert len(result.archives) == 1
    build_with(options, target="one", tags=("y",))
    noting.remember(asked, options, result, "", LOG)
    assert not asking.answered()
    asking.archive.write_bytes(own)  # which was not written by this build, either
    noting.remember(asked, options, result, "", LOG)
    assert not asking.answered()
    noting.remember(asked, options, build_with(options), "", LOG)
    assert asking.answered()


@pytest.mark.parametrize(
    "output",
    [{"type": "local", "dest": "d"}, {"type": "tar", "dest": "t"}, {"type": "oci", "dest": "o", "tar": False}],
)
def test_other_outputs_are_not_noted(asking: Asking, output: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(asking.root.parent)
    asking.build()
    asking.build(outputs=(Output(**output),))
    assert not asking.answered()


@given(st.lists(st.binary(max_size=20), min_size=1), st.binary(max_size=8))
def test_parts_of_archives_survive(parts: list[bytes], junk: bytes) -> None:
    data = repeated_archive.encode(parts, b"state")
    assert repeated_archive.decode(data, b"state") == parts
    with suppress(ValueError):
        repeated_archive.decode(junk, b"state")
