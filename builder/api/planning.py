"""From a build's inputs to its plan: parse the Dockerfile, resolve the images that it names, run the build checks.

Shared by builds and by what `--call` asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from builder import config as configuration
from builder.api.context_use import warn_of_climbing
from builder.api.inputs import Inputs
from builder.api.options import BuildOptions
from builder.api.special import NAMES, special_arguments
from builder.dockerfile.instructions import Arg, Dockerfile
from builder.dockerfile.text import nearest
from builder.errors import BuilderError, UsageError
from builder.oci import reference
from builder.oci.digests import hex_of
from builder.oci.platform import host_platform
from builder.oci.spec import ImageConfig
from builder.plan.checks import hides_source
from builder.plan.findings import Checks, checks_for, place
from builder.plan.locate import Locator
from builder.plan.options import PlanOptions
from builder.plan.planner import plan
from builder.plan.steps import ImageKey, Missing, Plan, StepNode
from builder.progress import Reporter, Warned
from builder.solver.bases import Bases
from builder.store.records import storable
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.registry.transport import Session
    from builder.solver.secrets import Guard

_PARSED = "dockerfile"
_SHORT = 4 << 10
"""Bytes of a Dockerfile that is parsed without the grammar in about the time that reading it from the store takes."""
_COMMON_IMAGES = ("alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu")


def locator(inputs: Inputs) -> Locator:
    return Locator(inputs.name, inputs.text.decode("utf-8", "replace"))


def connector(environ: Mapping[str, str], report: Reporter) -> Callable[[], Session]:
    """Opens a session with registries, when one is needed."""

    def connect() -> Session:
        from builder.registry.transport import Session

        return Session(configuration.load(environ), environ, reporter=report)

    return connect


def parse_dockerfile(store: Store, inputs: Inputs, guard: Guard | None = None) -> Dockerfile:
    """The parsed Dockerfile, from the store if this text was parsed before: that spares loading the grammar. One that
    holds a secret, which `guard` knows, is not kept there, nor a short one that needs no grammar: it is parsed again
    in the time that reading it there takes."""
    from builder.dockerfile import plain

    if len(inputs.text) < _SHORT and plain.looks_plain(inputs.text):
        from builder.dockerfile.parser import parse

        with suppress(plain.GrammarNeeded), plain.plain_only():
            return parse(inputs.text, inputs.name)
    from builder.dockerfile import codec

    key = hex_of(f"{storable(inputs.name)}\0".encode() + inputs.text)
    known = store.database.memo(_PARSED, key)
    if known is not None and known.startswith(form := codec.FORMAT.encode()):  # of this very parser
        return codec.decode(known[len(form) :])
    from builder.dockerfile.parser import parse

    parsed = parse(inputs.text, inputs.name)
    data = codec.encode(parsed)
    if guard is None or guard.find(data) is None:
        store.database.add_memo(_PARSED, key, codec.FORMAT.encode() + data)
    return parsed


def plan_options(inputs: Inputs, options: BuildOptions, *, all_stages: bool = False) -> PlanOptions:
    """What the options of a build mean for its plan. Raises UsageError."""
    _check_texts(options)
    return PlanOptions(
        host=host_platform(),
        build_args=options.build_args,
        platforms=options.platforms,
        target=options.target,
        labels=options.labels,
        contexts=inputs.kinds,
        no_cache=options.no_cache,
        network=options.network or "default",
        allow=options.allow,
        cache_namespace=special_arguments(options).cache_namespace,
        all_stages=all_stages,
        policy=inputs.policy,
    )


def _check_texts(options: BuildOptions) -> None:
    """Raise UsageError for what no image can say of itself: its configuration is JSON, which is Unicode."""
    annotations = [(annotation.key, annotation.value) for annotation in options.annotations]
    for option, pairs in (
        ("--build-arg", options.build_args.items()),
        ("--label", options.labels.items()),
        ("--annotation", annotations),
    ):
        for name, value in pairs:
            if storable(name + value) != name + value:
                raise UsageError(f"{option} {name!a} has bytes that are not UTF-8", remedy="write it in UTF-8")


def make_checks(
    inputs: Inputs, dockerfile: Dockerfile, build_args: Mapping[str, str], *, scripts: bool = False
) -> Checks:
    """The build checks of a Dockerfile, with its ignore rules. Raises DockerfileError for a bad build argument."""
    return checks_for(dockerfile, build_args, hidden=lambda: hides_source(inputs.rules()), scripts=scripts)


def plan_build(inputs: Inputs, options: BuildOptions, dockerfile: Dockerfile, bases: Bases, report: Reporter) -> Plan:
    """The plan of a build. Findings are reported as warnings, before any error. Raises BuilderError."""
    locate = locator(inputs)
    checks = make_checks(inputs, dockerfile, options.build_args)
    try:
        planned = complete_plan(dockerfile, plan_options(inputs, options), bases, locate, checks, inputs.remote)
    finally:
        for finding in checks.findings:
            report(Warned(finding.message, place(finding, locate), finding.rule))
    violation = checks.violation(locate)
    if violation is not None:
        raise violation
    if any(made.platform.os == "windows" for made in (*planned.nodes, *planned.images)):
        from builder.plan.windows import refuse_windows

        refuse_windows(planned, locate)
    for warning in unused_arguments(dockerfile, options.build_args, planned.used_args):
        report(warning)
    for warning in warn_of_climbing(dockerfile, planned, locate):
        report(warning)
    if any(isinstance(node, StepNode) for node in planned.nodes):
        bases.store.layers.open()
    return planned


def complete_plan(
    dockerfile: Dockerfile,
    options: PlanOptions,
    bases: Bases,
    locate: Locator,
    checks: Checks,
    remote: Mapping[str, str] | None = None,
) -> Plan:
    """Plan, resolving images until none is missing. Raises BuilderError.

    Offline, one error tells of everything that is missing; with `remote`, the contexts to be fetched, that includes
    what the steps need.
    """
    if bases.offline:
        from builder.api.offline import plan_offline

        return plan_offline(dockerfile, options, bases, locate, checks, remote)
    images: dict[ImageKey, ImageConfig] = {}
    while True:
        planned = plan(dockerfile, options, images, locate, checks)
        if isinstance(planned, Plan):
            return planned
        images |= resolve(planned, dockerfile, bases, locate)


def resolve(missing: Missing, dockerfile: Dockerfile, bases: Bases, locate: Locator) -> dict[ImageKey, ImageConfig]:
    """Resolve what a plan asks for. An image that is not found may be a misspelt stage: the error says so."""
    found: dict[ImageKey, ImageConfig] = {}
    for key in sorted(missing.images):
        with locate.at(missing.places.get(key)):
            try:
                found[key] = bases.resolve(key)
            except BuilderError as error:
                hint = _meant(key, dockerfile)
                if hint:
                    error.remedy = f"{hint}; otherwise: {error.remedy}" if error.remedy else hint
                raise
    return found


def _meant(key: ImageKey, dockerfile: Dockerfile) -> str:
    """What somebody who wrote the name of an unknown image may have meant."""
    if key.layout:
        return ""
    name = reference.parse(key.reference).familiar.removesuffix(":latest")
    stages = [stage.from_.name.lower() for stage in dockerfile.stages if stage.from_.name]
    close = nearest(name, stages)
    if close:
        return f"did you mean the stage {close}?"
    close = nearest(name.partition(":")[0], _COMMON_IMAGES)
    return f"did you mean {close}?" if close else ""


def unused_arguments(dockerfile: Dockerfile, given: Mapping[str, str], used: frozenset[str]) -> Iterator[Warned]:
    """A warning for each build argument that nothing consumed, with the name that may have been meant."""
    for name in sorted(given.keys() - used - NAMES):
        from difflib import get_close_matches

        declared = _declared(dockerfile)
        if name in declared:
            yield Warned(f"build argument {name!r} was given, but no stage that is built uses it")
            continue
        folded = {other.casefold(): other for other in declared if other not in given}
        close = get_close_matches(name.casefold(), folded, 1)
        hint = f"; did you mean {folded[close[0]]}?" if close else ""
        yield Warned(f"build argument {name!r} was given, but nothing uses it{hint}")


def _declared(dockerfile: Dockerfile) -> set[str]:
    instructions = [i for stage in dockerfile.stages for i in stage.instructions if isinstance(i, Arg)]
    return {pair.key.source for argument in (*dockerfile.global_args, *instructions) for pair in argument.pairs}
