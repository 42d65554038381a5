"""Memory that is freed while a large layer is written or read serves again."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from builder.filesystem.memory import keep_freed_memory

WRITE = """
import os, resource, sys
from builder.filesystem.compress import LayerSink

block = os.urandom(1 << 19) + bytes(1 << 19)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with LayerSink(sys.argv[1], sync=False, threads=2) as sink:
    for number in range(640):
        if number == 128:
            before = faults()
        sink.write(bytes(bytearray(block)))
    blob = sink.finish()
print(faults() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt(3)")
def test_a_large_layer_takes_no_new_memory_for_each_block(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    pages = (512 << 20) // 4096
    assert int(done.stdout) < pages / 32


def test_a_library_that_cannot_be_told_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    keep_freed_memory.__wrapped__()
