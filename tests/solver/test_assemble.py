"""Staged entries as a layer: what is read is what was looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.compression import Compression
from builder.filesystem.pipeline import Pipeline
from builder.filesystem.tree import FileInfo
from builder.solver.assemble import write_layer
from builder.solver.roots import EmptyTree
from builder.solver.staging import Staged, Staging
from tests.solver.support import OneFile, write


@pytest.mark.parametrize("size", [1000, 1 << 20, (1 << 20) + 1, 3 << 20])
@pytest.mark.parametrize("more", [-1, 0, 5])
def test_a_file_that_changed_its_length_is_refused(tmp_path: Path, size: int, more: int) -> None:
    path = write(tmp_path / "context", {"f": b"x" * (size + more)}) / "f"
    staging = Staging(EmptyTree())
    staging.put(Staged("f", FileInfo(kinds.FILE, 0o644, size=size), OneFile(path)))
    if more:
        with pytest.raises(LayerError):
            write_layer(staging, str(tmp_path))
        assert os.listdir(tmp_path) == ["context"]
    else:
        assert write_layer(staging, str(tmp_path)).uncompressed_size == 512 + -(-size // 512) * 512 + 1024


@pytest.mark.parametrize(("compression", "block"), [("gzip", 1 << 20), ("zstd", 2 << 20), ("uncompressed", 1 << 20)])
def test_a_large_file_is_read_as_the_layer_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, block: int
) -> None:
    """So that no piece is joined to another and cut again."""
    size = 5 << 20
    path = write(tmp_path / "context", {"f": bytes(size)}) / "f"
    staging = Staging(EmptyTree())
    staging.put(Staged("f", FileInfo(kinds.FILE, 0o644, size=size), OneFile(path)))
    submitted: list[bytes] = []
    read: list[bytes] = []
    real_read, real_submit = os.read, Pipeline.submit

    def reading(descriptor: int, most: int) -> bytes:
        read.append(real_read(descriptor, most))
        return read[-1]

    def submitting(pipeline: Pipeline, data: bytes) -> None:
        submitted.append(data)
        real_submit(pipeline, data)

    monkeypatch.setattr(os, "read", reading)
    monkeypatch.setattr(Pipeline, "submit", submitting)
    assert write_layer(staging, str(tmp_path), compression=Compression(compression)).uncompressed_size == size + 1536
    assert [len(piece) for piece in read if len(piece) > 512][:2] == [block - 512, block]
    assert submitted[1] is read[1]
    assert {len(data) for data in submitted[:-1]} == {block}
