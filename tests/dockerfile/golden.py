"""The golden form of a parsed Dockerfile: what testdata/parser/<case>/expected.json holds.

Fields with their default are left out, a word is shown as its source and a range as [first, last]. After a wanted
change of the parser, `python -m tests.dockerfile.golden` writes the files again; read the difference before you commit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from builder.dockerfile.instructions import Instruction, Range
from builder.dockerfile.parser import parse
from builder.dockerfile.words import Word
from builder.errors import DockerfileError

CASES = Path(__file__).parents[2] / "testdata" / "parser"


def case_names() -> list[str]:
    return sorted(path.parent.name for path in CASES.glob("*/Dockerfile"))


def outcome(case: str) -> Any:
    """What the parser makes of a case: its stages, or the error that it raises."""
    text = (CASES / case / "Dockerfile").read_bytes()
    try:
        return plain(parse(text))
    except DockerfileError as error:
        return {"error": {"place": error.place, "cause": error.cause, "help": error.remedy, "details": error.details}}


def plain(value: Any) -> Any:
    if isinstance(value, Word):
        return value.source
    if isinstance(value, Range):
        return [value.start, value.end]
    if isinstance(value, msgspec.Struct):
        shown = {"instruction": type(value).__name__} if isinstance(value, Instruction) else {}
        for field in msgspec.structs.fields(value):
            item = getattr(value, field.name)
            if item != field.default:
                shown[field.name] = plain(item)
        return shown
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def main() -> None:
    for case in case_names():
        text = json.dumps(outcome(case), ensure_ascii=False, indent=1)
        (CASES / case / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
