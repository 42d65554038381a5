"""What can be asked of a Dockerfile without building it: build checks, its outline, its targets.

No step runs and no layer is fetched; of base images only the configurations are looked up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO

import msgspec

from builder.api.inputs import Inputs, is_url
from builder.api.opening import opened
from builder.api.options import BuildOptions
from builder.api.planning import (
    complete_plan,
    connector,
    locator,
    make_checks,
    parse_dockerfile,
    plan_options,
    resolve,
)
from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.stage_graph import StageGraph
from builder.errors import BuilderError, DockerfileError
from builder.oci.spec import ImageConfig
from builder.plan.findings import Checks, ordered
from builder.plan.outline import Outline, TargetLine, list_targets, outline
from builder.plan.planner import plan_stages
from builder.plan.steps import Finding, ImageKey, Missing
from builder.progress import Reporter, ignore
from builder.solver.bases import Bases
from builder.store.store import Store

_BEFORE_ERRORS = frozenset(
    ("StageNameCasing", "FromAsCasing", "NoEmptyContinuation", "MaintainerDeprecated", "InvalidDefinitionDescription")
)
"""What can be said of the instructions before one that cannot be parsed."""


class Source(msgspec.Struct, frozen=True):
    """The Dockerfile that an answer is about."""

    name: str
    text: bytes


class CheckResult(msgspec.Struct, frozen=True):
    """What the checks found, in the order of lines; `error` is what a build would fail with before its first step."""

    source: Source
    findings: tuple[Finding, ...]
    error: BuilderError | None


class OutlineResult(msgspec.Struct, frozen=True):
    source: Source
    outline: Outline


class TargetsResult(msgspec.Struct, frozen=True):
    source: Source
    targets: tuple[TargetLine, ...]


def check(options: BuildOptions, report: Reporter = ignore, stdin: BinaryIO | None = None) -> CheckResult:
    """Run the build checks: for all stages, or with a target for what it needs. With ShellCheck installed, RUN scripts
    are checked as well. Raises BuilderError if there is nothing to check (no Dockerfile)."""
    with _open(options, stdin) as (store, scratch, inputs), closing(_bases(store, options, report)) as bases:
        source = Source(inputs.name, inputs.text)
        try:
            dockerfile = parse_dockerfile(store, inputs)
            checks = make_checks(inputs, dockerfile, options.build_args, scripts=True)
        except BuilderError as error:
            return CheckResult(source, tuple(ordered(_before(error, inputs, options))), error)
        locate = locator(inputs)
        problem: BuilderError | None = None
        try:
            complete_plan(
                dockerfile, plan_options(inputs, options, all_stages=not options.target), bases, locate, checks
            )
            _check_scripts(checks, inputs, dockerfile, options, scratch)
        except BuilderError as error:
            problem = error
        return CheckResult(source, tuple(ordered(checks.findings)), problem or checks.violation(locate))


def outline_of(options: BuildOptions, report: Reporter = ignore, stdin: BinaryIO | None = None) -> OutlineResult:
    """What the target (the last stage, if none is given) takes: arguments, secrets, agents and caches.

    Raises BuilderError.
    """
    with _open(options, stdin) as (store, _, inputs), closing(_bases(store, options, report)) as bases:
        dockerfile = parse_dockerfile(store, inputs)
        images: dict[ImageKey, ImageConfig] = {}
        while True:
            found = outline(dockerfile, plan_options(inputs, options), images, locator(inputs))
            if not isinstance(found, Missing):
                return OutlineResult(Source(inputs.name, inputs.text), found)
            images |= resolve(found, dockerfile, bases, locator(inputs))


def targets_of(options: BuildOptions, report: Reporter = ignore, stdin: BinaryIO | None = None) -> TargetsResult:
    """The stages that can be built. Raises BuilderError."""
    with _open(options, stdin) as (store, _, inputs):
        return TargetsResult(Source(inputs.name, inputs.text), list_targets(parse_dockerfile(store, inputs)))


def stages_of(options: BuildOptions, stdin: BinaryIO | None = None) -> StageGraph:
    """How the stages depend on each other. No registry is asked. Raises BuilderError."""
    with _open(options, stdin) as (store, _, inputs):
        return plan_stages(parse_dockerfile(store, inputs), plan_options(inputs, options), locator(inputs))


@contextmanager
def _open(options: BuildOptions, stdin: BinaryIO | None) -> Iterator[tuple[Store, str, Inputs]]:
    with opened(options, stdin) as (store, scratch, _, inputs):
        yield store, scratch, msgspec.structs.replace(inputs, name=_shown_name(inputs, options))


def _shown_name(inputs: Inputs, options: BuildOptions) -> str:
    """The Dockerfile's path as the user can open it, as with Docker."""
    if is_url(options.dockerfile):
        from builder.context.http import redacted

        return redacted(options.dockerfile)
    if options.dockerfile and options.dockerfile != "-":
        return options.dockerfile
    if os.path.isdir(options.context) and not options.dockerfile:
        return os.path.normpath(os.path.join(options.context, inputs.name))
    return inputs.name


def _bases(store: Store, options: BuildOptions, report: Reporter) -> Bases:
    return Bases(store, connector(options.environ, report), report, pull=options.pull, offline=options.offline)


def _check_scripts(checks: Checks, inputs: Inputs, dockerfile: Dockerfile, options: BuildOptions, scratch: str) -> None:
    if not checks.runs:
        return
    from builder.api.shellcheck import check_scripts, find_shellcheck

    program = find_shellcheck(options.environ)
    if program is not None:
        text = inputs.text.decode("utf-8", "surrogateescape")
        check_scripts(checks, text, dockerfile.escape, program, scratch)


def _before(error: BuilderError, inputs: Inputs, options: BuildOptions) -> list[Finding]:
    """The findings about the instructions before the one that the parser refused."""
    line = (error.place or "").removeprefix(f"{inputs.name}:")
    if not line.isdigit():
        return []
    from builder.dockerfile.parser import parse

    try:
        head = parse(b"\n".join(inputs.text.split(b"\n")[: int(line) - 1]), inputs.name)
        checks = make_checks(inputs, head, options.build_args)
    except DockerfileError:
        return []
    return _noticed(checks, head)


def _noticed(checks: Checks, dockerfile: Dockerfile) -> list[Finding]:
    from builder.plan.checks import check_notices

    check_notices(checks, dockerfile)
    return [finding for finding in checks.findings if finding.rule in _BEFORE_ERRORS]


Answer = CheckResult | OutlineResult | TargetsResult
CALLS: dict[str, Callable[[BuildOptions, Reporter], Answer]] = {
    "check": check,
    "outline": outline_of,
    "targets": targets_of,
}
"""What can be asked for, by the names that `--call` knows."""
