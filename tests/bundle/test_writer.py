"""When the file of compiled modules is written, and when not."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from builder.bundle import Bundle, writer
from tests.support.bundles import ALL, Sample


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path)


def test_not_written_where_python_writes_nothing(sample: Sample) -> None:
    sample.run("one", PYTHONDONTWRITEBYTECODE="1")
    assert not list(sample.package.rglob("*.modules"))
    sample.run("one")
    assert sample.run("one", PYTHONDONTWRITEBYTECODE="1") == ({"one": 2}, ALL)


def test_where_python_keeps_compiled_modules(sample: Sample, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    sample.run("one", PYTHONPYCACHEPREFIX=str(elsewhere))
    assert not list(sample.package.rglob("*.modules"))
    assert len(list(elsewhere.rglob("*.modules"))) == 1
    assert sample.run("one", PYTHONPYCACHEPREFIX=str(elsewhere)) == ({"one": 2}, ALL)


def test_one_for_each_way_to_compile(sample: Sample) -> None:
    sample.run("one")
    assert sample.run("one", PYTHONOPTIMIZE="2") == ({"one": 2}, [])
    assert sample.run("one", PYTHONOPTIMIZE="2") == ({"one": 2}, ALL)
    assert len(list(sample.package.rglob("*.modules"))) == 2


def test_nobody_minds_that_it_cannot_be_written(sample: Sample) -> None:
    (sample.package / "__pycache__").write_text("a file")
    assert sample.run("one") == ({"one": 2}, [])
    assert sample.run("one") == ({"one": 2}, [])


def test_nothing_is_read_where_it_cannot_be_written(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a program is used that belongs to somebody else."""
    sample.run("one")
    sample.file().unlink()
    monkeypatch.syspath_prepend(sample.directory)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    read: list[str] = []
    monkeypatch.setattr(writer, "_compiled", lambda source: read.append(source))
    made = Bundle(str(sample.package), "sample")
    importlib.import_module("sample.one")
    try:
        made.complete()
        assert read
        read.clear()
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        made.complete()
        assert not read
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "sample"]:
            del sys.modules[name]


def test_no_half_written_file_stays(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = sample.package / "__pycache__"
    directory.mkdir()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        writer._replace(f"{directory}/all.modules", {"sample.one": ("one.py", 0, 0, b"code")})
    assert not list(directory.iterdir())
