"""Kept tables of the grammars: the same parser, whatever is in the file."""

import marshal
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.dockerfile import grammar, tables
from builder.dockerfile.forms import Forms
from builder.dockerfile.tables import Tables
from builder.dockerfile.word_parts import WordParts

STARTS = ["command", "arguments", "origin", "words", "legacy_pair", "health", "array"]
LINE = '["a", "b c"]'


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that tables go to."""

    def here(name: str, made_from: list[str]) -> Tables:
        return Tables(name, made_from, str(tmp_path / "kept"))

    monkeypatch.setattr(grammar, "Tables", here)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return tmp_path / "kept"


GRAMMARS = [
    ("dockerfile.lark", STARTS, Forms, LINE, "array"),
    ("words.lark", ["word", "body"], WordParts, "plain", "word"),
]


@pytest.mark.parametrize(("name", "starts", "forms", "text", "start"), GRAMMARS)
def test_each_grammar_is_kept(
    kept: Path, name: str, starts: list[str], forms: Callable[[], Any], text: str, start: str
) -> None:
    made = grammar.make_parser(name, starts, forms()).parse(text, start=start)
    (file,) = kept.iterdir()
    assert file.name.startswith(name)
    assert grammar.make_parser(name, starts, forms()).parse(text, start=start) == made


def parsed() -> object:
    return grammar.make_parser("dockerfile.lark", STARTS, Forms()).parse(LINE, start="array")


def test_written_once_and_read(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = parsed()
    (file,) = kept.iterdir()
    written = file.stat().st_mtime_ns

    def never(self: Tables, parser: object) -> None:
        raise AssertionError("the tables were made again")

    monkeypatch.setattr(tables.Tables, "write", never)
    assert parsed() == made
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", marshal.dumps({}), marshal.dumps({"data": {}, "memo": {}}), marshal.dumps([1, 2])]
)
def test_a_damaged_file_is_made_again(kept: Path, content: bytes) -> None:
    made = parsed()
    (file,) = kept.iterdir()
    file.write_bytes(content)
    assert parsed() == made
    assert marshal.loads(file.read_bytes()).keys() == {"data", "memo"}
    assert marshal.loads(file.read_bytes())["data"]


def test_only_the_newest_stays(kept: Path) -> None:
    kept.mkdir()
    (kept / "dockerfile.lark-old.tables").write_bytes(b"x")
    (kept / "words.lark-other.tables").write_bytes(b"x")
    parsed()
    assert sorted(path.name.partition("-")[0] for path in kept.iterdir()) == ["dockerfile.lark", "words.lark"]


def test_a_place_that_cannot_be_written(kept: Path) -> None:
    kept.write_bytes(b"a file")
    assert parsed()
    os.unlink(kept)


def test_nothing_is_written_where_no_bytecode_is(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert parsed()
    assert not kept.exists()
