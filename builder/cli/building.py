"""What `builder build` does."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from builder.cli import values
from builder.cli.echo import MOST, listening
from builder.cli.progress import open_view
from builder.cli.settings import Settings
from builder.errors import BuilderError, UsageError

if TYPE_CHECKING:
    from builder.api.options import BuildOptions, BuildResult
    from builder.api.repeat.question import Question
    from builder.cli.call import Call


def run_build(settings: Settings, given: dict[str, Any]) -> int:
    """Build, or answer what the options ask instead; `given` are the options as click reads them, by the names that
    `build` gives them. Returns the exit status. Raises BuilderError."""
    if given["check"] or given["call"] != "build":
        from builder.cli.call import parse_call

        call = parse_call(given["call"], given["check"])
        if call is not None:
            return _answer(settings, call, given)
    if given["dry_run"]:
        from builder.cli.plan import show_plan

        return show_plan(settings, given)
    options = values.build_options(settings.root, given, dict(os.environ))
    if given["metadata_file"]:
        from builder.cli.metadata import wanted_provenance

        options = replace(options, told_provenance=wanted_provenance(os.environ))
    if given["on_error"] != "fail" or given["break_at"]:
        options = _interactive(options, given)
    if given["iidfile"] and options.outputs and all(output.type in ("tar", "local") for output in options.outputs):
        raise UsageError("--iidfile needs an image, and only files are written", remedy="leave it out")  # as in buildx
    _prepare_files(given)
    if os.geteuid() != 0:
        from builder.cli.rootless import become_root

        become_root()
    if settings.debug:
        from builder.solver.isolation import choose

        isolation = choose(options.isolation)
        print(f"isolation: {isolation.rung}: {isolation.reason}", file=sys.stderr)
    asked = _to_note(settings, given)
    try:
        with listening(MOST if asked is not None else 0) as (output, errors):
            result = _build(options, given)
    except BuilderError as error:
        if not error.kept:
            raise
        from builder.cli.debug import after_failure

        return after_failure(settings, options, error, shell=given["on_error"] != "keep")
    if given["iidfile"]:
        _write(given["iidfile"], result.image_id)
    if given["metadata_file"]:
        from builder.cli.metadata import metadata

        _write(given["metadata_file"], metadata(result, os.environ))
    if asked is not None and output.heard is not None and errors.heard is not None:
        from builder.api.repeat.build import remember

        remember(asked, options, result, output.heard, errors.heard)
    return 0


def _to_note(settings: Settings, given: dict[str, Any]) -> Question | None:
    """What is asked, if the answer may be noted for another time."""
    asked = settings.asked
    if asked is None or asked.watched or given["iidfile"] or given["metadata_file"]:
        return None
    return asked


def _build(options: BuildOptions, given: dict[str, Any]) -> BuildResult:
    """Build, and show it."""
    from builder.api.build import build

    view = open_view("quiet" if given["quiet"] else given["progress"])
    try:
        result = build(options, view)
    finally:
        view.close()
    writes_to_stdout = any(output.dest == "-" for output in options.outputs)
    if given["quiet"] and result.image_id and not writes_to_stdout:
        print(result.image_id)
    elif not given["quiet"] and given["progress"] not in ("none", "rawjson") and result.image_id:
        names = ", ".join(result.tags) or "(no name; give one with -t)"
        print(f"image {result.image_id[:19]} {names}", file=sys.stderr)
    return result


def _interactive(options: BuildOptions, given: dict[str, Any]) -> BuildOptions:
    """With `--on-error` and `--break`. Raises UsageError where a shell would have no terminal."""
    if given["on_error"] != "keep":
        from builder.cli.debug import check_terminal

        check_terminal()
    return replace(options, keep_failed=given["on_error"] != "fail", break_at=given["break_at"])


def _answer(settings: Settings, call: Call, given: dict[str, Any]) -> int:
    """Answer a `--call`; nothing is built, so what only concerns the image has no effect, as with Docker."""
    from builder.cli.call import metadata, print_answer, run_call

    options = values.build_options(settings.root, given, dict(os.environ))
    values.refuse_accounts(given)
    if given["metadata_file"]:
        _prepare(given["metadata_file"])
    view = open_view("quiet" if given["quiet"] else given["progress"])
    try:
        answer, shown = run_call(call, options, view)
    finally:
        view.close()
    if given["metadata_file"]:
        _write(given["metadata_file"], metadata(shown))
    return print_answer(call, answer, shown)


def _prepare_files(given: dict[str, Any]) -> None:
    """Prepare the files that a build writes about itself; a report or a trace may go to standard output."""
    for option in ("iidfile", "metadata_file", "report", "trace"):
        path = given[option]
        if path and not (path == "-" and option in ("report", "trace")):
            _prepare(path)


def _prepare(path: str) -> None:
    """Find out now whether a file can be written when all is done; what an earlier build wrote goes, as with Docker.

    A link stays (`/dev/stdout` is one), as with `export.destination`. A pipe is left alone: its reader would take the
    first who closes it for the end."""
    if stat.S_ISFIFO(_mode(path)):
        return
    _write(path, "")
    if os.path.isfile(path) and not os.path.islink(path):
        os.unlink(path)


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:  # which writing says better
        return 0


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BuilderError(f"cannot write: {error.strerror}", place=path) from error
