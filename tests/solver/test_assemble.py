"""Staged entries as a layer: what is read is what was looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import LayerError
from builder.filesystem import kinds
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
