"""Builds that fetch nothing: everything they lack is told at once, before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from builder.api.options import BuildOptions
from builder.dockerfile.instructions import Dockerfile, Range
from builder.errors import BuilderError, OfflineError, UsageError
from builder.oci import reference
from builder.oci.spec import ImageConfig
from builder.plan.findings import Checks
from builder.plan.image import empty_image
from builder.plan.locate import Locator
from builder.plan.options import PlanOptions
from builder.plan.planner import plan
from builder.plan.steps import (
    CopyGit,
    CopyNode,
    CopyUrl,
    ImageKey,
    Plan,
)
from builder.solver.bases import Bases

Lack = tuple[Range | None, str]
"""What is not here, and the lines that ask for it."""


def check_offline(options: BuildOptions) -> None:
    """Raises UsageError for what an offline build cannot do."""
    asked = {
        "--pull": options.pull,
        "--push, or an output that pushes,": any(output.push for output in options.outputs),
        "--cache-from with a registry": any(source.reference is not None for source in options.cache_from),
        "--cache-to with a registry": any(target.reference is not None for target in options.cache_to),
    }
    for option, given in asked.items():
        if given:
            raise UsageError(f"{option} needs the network, which --offline forbids", remedy="leave out one of them")


def plan_offline(
    dockerfile: Dockerfile,
    options: PlanOptions,
    bases: Bases,
    locate: Locator,
    checks: Checks,
    remote: Mapping[str, str] | None,
) -> Plan:
    """The plan, if everything it needs is here. With `remote`, the contexts that must be fetched, the sources of its
    steps count, too. Raises OfflineError that names all that is missing."""
    images: dict[ImageKey, ImageConfig] = {}
    absent: dict[ImageKey, Range | None] = {}
    while True:
        try:
            planned = plan(dockerfile, options, images, locate, checks)
        except BuilderError:
            if absent:  # the plan was made with nothing in the place of these
                break
            raise
        if isinstance(planned, Plan):
            break
        for key in sorted(planned.images):
            try:
                images[key] = bases.resolve(key)
            except OfflineError:
                absent[key] = planned.places.get(key)
                images[key] = empty_image(key.platform)
    lacks = [(place, f"the image {_name(key)} for {key.platform}") for key, place in absent.items()]
    if isinstance(planned, Plan) and remote is not None:
        lacks += _lacking_sources(planned, bases, remote)
        ends = {image.base for image in planned.images if image.base is not None} - absent.keys()
        lacks += [(None, text) for text in bases.absent_layers(sorted(ends))]
    if lacks:
        checks.clear()  # they were made of a plan that nobody will carry out
        raise _lacking(sorted(dict.fromkeys(lacks), key=_line), locate)
    assert isinstance(planned, Plan)
    return planned


def _lacking_sources(planned: Plan, bases: Bases, remote: Mapping[str, str]) -> Iterator[Lack]:
    """The URLs, repositories and contexts that the needed steps take files from."""
    for number in planned.needed(image.node for image in planned.images):
        node = planned.nodes[number]
        for name in node.contexts():
            if name in remote:
                yield node.range, f"the context {name}, {remote[name]}"
        for source in node.sources if isinstance(node, CopyNode) else ():
            if isinstance(source, (CopyUrl, CopyGit)):
                from builder.solver.remote import missing_source

                missing = missing_source(bases.store, source)
                if missing is not None:
                    yield node.range, missing


def _name(key: ImageKey) -> str:
    return reference.parse(key.reference).familiar


def _line(lack: Lack) -> float:
    """Where it is named; what no line names comes last."""
    return lack[0].start if lack[0] is not None else math.inf


def _lacking(lacks: Sequence[Lack], locate: Locator) -> OfflineError:
    remedy = "build once without --offline; 'builder pull' fetches images"
    if len(lacks) == 1:
        place, text = lacks[0]
        with_place = locate.place(place) if place is not None else None
        return OfflineError(f"the build is offline and lacks {text}", place=with_place, remedy=remedy)
    details = [f"    {locate.place(place)}: {text}" if place is not None else f"    {text}" for place, text in lacks]
    return OfflineError(f"the build is offline and lacks {len(lacks)} things:", details=tuple(details), remedy=remedy)
