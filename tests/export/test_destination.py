"""Files that outputs are written to."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from builder.errors import StoreError
from builder.export.destination import destination


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.tar"
    with destination(str(path)) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert os.listdir(tmp_path) == ["out.tar"]


def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    path = tmp_path / "out.tar"
    path.write_bytes(b"old")

    def fail() -> None:
        with destination(str(path)) as file:
            file.write(b"new")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.tar"]


def test_a_name_as_long_as_a_name_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with destination(str(path)) as file:
        file.write(b"all")
    assert path.read_bytes() == b"all"


def test_a_link_is_written_through_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"")
    link = tmp_path / "stdout"
    link.symlink_to("real")
    with destination(str(link)) as file:
        file.write(b"data")
    assert link.is_symlink()
    assert (tmp_path / "real").read_bytes() == b"data"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with destination(str(pipe)) as file:
        file.write(b"data")
    reader.join(10)
    assert got == [b"data"]
    assert pipe.is_fifo()


def test_a_missing_directory_is_an_error_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught, destination(str(tmp_path / "none" / "out.tar")):
        pass
    assert "out.tar" in str(caught.value)
