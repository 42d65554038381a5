"""`builder build --call=check|outline|targets`: answers as text, or as JSON in the shapes that docker buildx prints.

The shapes are those of BuildKit's `frontend/subrequests`, with the caches added to the outline.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

import msgspec

from builder.api.call import CALLS, Answer, CheckResult, OutlineResult, Source, TargetsResult
from builder.api.options import BuildOptions
from builder.dockerfile.instructions import Range
from builder.dockerfile.text import did_you_mean
from builder.errors import EXIT_FAILED, UsageError
from builder.plan.outline import OutlineMount
from builder.plan.rules import rule
from builder.plan.steps import Finding
from builder.progress import Reporter

_RULER = "-" * 20
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


class Call(msgspec.Struct, frozen=True):
    """What `--call` asks for: `name` is check, outline or targets; `json` the form of the answer; with `ignore_status`
    a check that finds something does not make the exit status 1."""

    name: str
    json: bool = False
    ignore_status: bool = False


def parse_call(text: str, check: bool) -> Call | None:
    """`NAME[,format=json][,ignorestatus=true]`; `check` is `--check`. None for a build. Raises UsageError."""
    name, form, ignore_status = "", "", False
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals:
            if name:
                raise UsageError(f"--call={text} names two methods", remedy="choose one of check, outline and targets")
            name = field
        elif key == "format":
            form = value
        elif key == "ignorestatus" and value.lower() in _BOOLEANS:
            ignore_status = _BOOLEANS[value.lower()]
        else:
            raise UsageError(
                f"invalid field {field!r} in --call",
                remedy="write --call=check, --call=check,format=json or --call=check,ignorestatus=true",
            )
    name = "check" if name == "lint" else name or "build"
    if name not in (*CALLS, "build"):
        raise UsageError(
            f"unknown method {name!r} for --call{did_you_mean(name, (*CALLS, 'build'))}",
            remedy="the methods are build, check, outline and targets",
        )
    if form not in ("", "text", "json"):
        raise UsageError(f"unknown format {form!r} in --call", remedy="write format=json, or nothing for text")
    if check:
        if name not in ("build", "check"):
            raise UsageError(f"--check and --call={name} contradict each other", remedy="give one of them")
        name = "check"
    return None if name == "build" else Call(name, form == "json", ignore_status)


def run_call(call: Call, options: BuildOptions, report: Reporter) -> tuple[Answer, dict[str, Any]]:
    """The answer, and the document that stands for it."""
    answer = CALLS[call.name](options, report)
    return answer, document(answer)


def print_answer(call: Call, answer: Answer, shown: dict[str, Any], out: TextIO | None = None) -> int:
    """Print an answer and return the exit status. Raises the error that a check met, after what it found before."""
    out = out or sys.stdout
    if call.json:
        print(json.dumps(shown, indent=2, ensure_ascii=False), file=out)
    else:
        for line in _lines(answer):
            print(line, file=out)
    if not isinstance(answer, CheckResult):
        return 0
    out.flush()
    if answer.error is not None:
        raise answer.error
    return EXIT_FAILED if answer.findings and not call.ignore_status else 0


def _lines(answer: Answer) -> Iterator[str]:
    if isinstance(answer, CheckResult):
        yield from _check_lines(answer)
    elif isinstance(answer, OutlineResult):
        yield from _outline_lines(answer)
    else:
        rows = [(_target_name(target.name, target.default), target.description) for target in answer.targets]
        yield from _table([("TARGET", "DESCRIPTION"), *rows], 1)


# --- text


def _check_lines(answer: CheckResult) -> Iterator[str]:
    count = len(answer.findings)
    if count:
        yield f"Check complete, {'1 warning has' if count == 1 else f'{count} warnings have'} been found!"
    elif answer.error is None:
        yield "Check complete, no warnings found."
    for finding in answer.findings:
        about = rule(finding.rule)
        yield ""
        yield f"WARNING: {about.name}" + (f" - {about.url}" if about.url else "")
        yield _printable(finding.message)
        yield from _excerpt(answer.source, finding)


def _excerpt(source: Source, finding: Finding) -> Iterator[str]:
    """The lines of a finding, marked, with two or more around them, as BuildKit chooses them."""
    if finding.range is None:
        return
    lines = source.text.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
    first, last = finding.range.start, min(finding.range.end, len(lines))
    if not 1 <= first <= len(lines):
        return
    begin, end, shown = first, last, 0
    wanted = 4 if begin == end else 2
    while shown < wanted:
        if begin > 1:
            begin, shown = begin - 1, shown + 1
        if end != len(lines):
            end, shown = end + 1, shown + 1
        shown += 1
    yield f"{source.name}:{first}" + (f":{finding.column}" if finding.column else "")
    yield _RULER
    for number in range(begin, end + 1):
        mark = ">>>" if first <= number <= last else "   "
        yield f" {number:3d} | {mark} {_printable(lines[number - 1])}"
    yield _RULER


def _printable(text: str) -> str:
    """The text without characters that could drive a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text.removesuffix("\r"))


def _outline_lines(answer: OutlineResult) -> Iterator[str]:
    found = answer.outline
    if found.name or found.description:
        rows = [("TARGET:", found.name or "(default)")]
        if found.description:
            rows.append(("DESCRIPTION:", found.description))
        yield from _table(rows, 1)
        yield ""
    if found.arguments:
        arguments = [(argument.name, argument.value, argument.description) for argument in found.arguments]
        yield from _table([("BUILD ARG", "VALUE", "DESCRIPTION"), *arguments], 3)
        yield ""
    for title, mounts in (("SECRET", found.secrets), ("SSH", found.agents)):
        if mounts:
            rows = [(mount.name, "true" if mount.required else "") for mount in mounts]
            yield from _table([(title, "REQUIRED"), *rows], 3)
            yield ""
    if found.caches:
        yield from _table([("CACHE",), *((mount.name,) for mount in found.caches)], 3)
        yield ""


def _target_name(name: str, default: bool) -> str:
    if not default:
        return name
    return f"{name} (default)" if name else "(default)"


def _table(rows: Sequence[tuple[str, ...]], padding: int) -> Iterator[str]:
    """Rows with aligned columns."""
    widths = [max(len(cell) for cell in column) + padding for column in zip(*rows, strict=True)]
    for row in rows:
        *cells, last = row
        text = "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)) + last
        yield _printable(text).rstrip()


# --- JSON


def document(answer: Answer) -> dict[str, Any]:
    """The answer as JSON, with the names that docker buildx uses."""
    data = base64.b64encode(answer.source.text).decode()
    if isinstance(answer, CheckResult):
        sources = [{"filename": answer.source.name, "data": data, "language": "Dockerfile"}]
        shown: dict[str, Any] = {"warnings": [_warning(f) for f in answer.findings] or None, "sources": sources}
        if answer.error is not None:
            shown["buildError"] = {"message": answer.error.cause, "location": _error_location(answer)}
        return shown
    if isinstance(answer, TargetsResult):
        targets = [
            _without_empty(
                {
                    "name": target.name,
                    "default": target.default,
                    "description": target.description,
                    "base": target.base,
                    "platform": target.platform,
                    "location": _location(target.range),
                }
            )
            for target in answer.targets
        ]
        return {"targets": targets, "sources": [data]}
    return _outline_document(answer, data)


def _outline_document(answer: OutlineResult, data: str) -> dict[str, Any]:
    found = answer.outline
    arguments = [
        {
            "name": argument.name,
            **_without_empty({"description": argument.description, "value": argument.value}),
            "location": _location(argument.range),
        }
        for argument in found.arguments
    ]
    return _without_empty(
        {
            "name": found.name,
            "description": found.description,
            "args": arguments,
            "secrets": _mounts(found.secrets),
            "ssh": _mounts(found.agents),
            "cache": [{"ID": mount.name, "location": _location(mount.range)} for mount in found.caches],
            "sources": [data],
        }
    )


def _mounts(mounts: Iterable[OutlineMount]) -> list[dict[str, Any]]:
    return [
        {"name": mount.name, **_without_empty({"required": mount.required}), "location": _location(mount.range)}
        for mount in mounts
    ]


def _warning(finding: Finding) -> dict[str, Any]:
    about = rule(finding.rule)
    return _without_empty(
        {
            "ruleName": about.name,
            "description": about.description,
            "url": about.url,
            "detail": finding.message,
            "location": _location(finding.range, finding.column) if finding.range else {},
        }
    )


def _location(lines: Range, column: int = 0) -> dict[str, Any]:
    """A range for each line, as BuildKit has it; a column counts from 0 there."""
    ranges = [{"start": {"line": line}, "end": {"line": line}} for line in range(lines.start, lines.end + 1)]
    if column > 1:
        ranges[0]["start"]["character"] = column - 1
    return {"ranges": ranges}


def _error_location(answer: CheckResult) -> dict[str, Any]:
    place = (answer.error.place or "") if answer.error is not None else ""
    line = place.removeprefix(f"{answer.source.name}:")
    return _location(Range(int(line), int(line))) if line.isdigit() else {}


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def metadata(shown: dict[str, Any]) -> str:
    """What `--metadata-file` holds after a call."""
    return json.dumps({"result.json": shown}, indent=2, ensure_ascii=False) + "\n"
