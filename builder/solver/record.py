"""The steps of a build as its record keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from builder.oci import reference as references
from builder.oci.digests import chain_id
from builder.oci.spec import ImageConfig, RootFS
from builder.plan.checks import is_sensitive
from builder.plan.steps import (
    AnyNode,
    CopyFiles,
    CopyGit,
    CopyInline,
    CopyNode,
    CopyUrl,
    FromNode,
    ImageKey,
    ImageNode,
    Plan,
    PlannedImage,
    RunNode,
    ScratchNode,
    TreeNode,
)
from builder.solver.keys import masked
from builder.solver.solve import Root, Solved
from builder.store.builds import CACHED, FAILED, NOT_NEEDED, NOT_STARTED, RAN, STOPPED, BuiltImage, BuiltStep

NotedAs = Callable[[ImageKey], str]
"""The digest of a resolved image's manifest."""


def built_step(
    plan: Plan, number: int, solved: Solved | None, roots: Mapping[int, Root], digest_of: NotedAs, log: int = 0
) -> BuiltStep:
    """What is known of a node by now."""
    node = plan.nodes[number]
    root = roots.get(number)
    known = BuiltStep(
        step=str(number),
        kind=_kind(node),
        name=node.label,
        stage=node.stage,
        instruction=node.instruction,
        platform=str(node.platform),
        line=node.range.start if node.range else 0,
        needs=tuple(map(str, node.needs())),
        variables=tuple((kind, name, _shown(name, value)) for kind, name, value in node.variables),
        outcome=NOT_STARTED,
    )
    replace = msgspec.structs.replace
    if isinstance(node, ScratchNode):
        return replace(known, outcome=CACHED)
    if isinstance(node, ImageNode):
        reference = node.image.layout or references.parse(node.image.reference).familiar
        layers = root.layers if root is not None else ()
        return replace(known, outcome=CACHED, reference=reference, digest=digest_of(node.image), layers=layers)
    if solved is None:
        return known
    trace = solved.trace
    return replace(
        known,
        outcome=_outcome(solved, root),
        external=solved.external,
        sources=tuple(_sources(plan, node)) if isinstance(node, CopyNode) else (),
        arguments=node.arguments if isinstance(node, RunNode) else (),
        key=trace.key,
        content=trace.content,
        parts=trace.parts,
        layers=root.layers[-1:] if root is not None else (),
        reason=None if root is not None and root.cached else trace.reason,
        previous_build=trace.previous_build,
        previous_step=trace.previous_step,
        started=solved.started,
        queued=solved.queued,
        seconds=solved.seconds,
        error=solved.error,
        log=log,
    )


def built_steps(
    plan: Plan,
    solved: Mapping[int, Solved],
    roots: Mapping[int, Root],
    digest_of: NotedAs,
    logs: Mapping[str, int],
) -> tuple[BuiltStep, ...]:
    """All steps of a build that ended, and what it left out."""
    steps = [
        built_step(plan, number, solved.get(number), roots, digest_of, logs.get(str(number), 0))
        for number in range(len(plan.nodes))
    ]
    for left_out in plan.unneeded:
        line = left_out.range.start if left_out.range else 0
        name = f"[{left_out.stage}] {left_out.instruction}"
        steps.append(
            BuiltStep(name=name, stage=left_out.stage, instruction=left_out.instruction, line=line, outcome=NOT_NEEDED)
        )
    return tuple(steps)


def built_images(plan: Plan, roots: Mapping[int, Root], image_ids: Sequence[str]) -> tuple[BuiltImage, ...]:
    """What the configurations of the images were after each step; `image_ids` are in the plan's order."""
    return tuple(_built_image(image, roots, name) for image, name in zip(plan.images, image_ids, strict=True))


def _built_image(image: PlannedImage, roots: Mapping[int, Root], image_id: str) -> BuiltImage:
    moments: list[tuple[str, int]] = []
    kept: list[ImageConfig] = []
    last: ImageConfig | None = None
    for node, config in image.moments:
        if config is not last:
            last = config
            kept.append(
                msgspec.structs.replace(
                    config,
                    os=image.config.os,
                    architecture=image.config.architecture,
                    variant=image.config.variant,
                    rootfs=RootFS(),
                    history=None,
                    created=None,
                )
            )
        moments.append((chain_id(roots[node].layers), len(kept) - 1))
    return BuiltImage(image_id, tuple(moments), tuple(kept))


def _kind(node: AnyNode) -> str:
    return {"TreeNode": "context"}.get(type(node).__name__) or type(node).__name__.removesuffix("Node").lower()


def _outcome(solved: Solved, root: Root | None) -> str:
    if root is not None:
        return CACHED if root.cached else RAN
    return STOPPED if solved.stopped else FAILED


def _shown(name: str, value: str) -> str:
    """A variable's value, or what stands for one that nobody is to read."""
    return f"sha256:{masked(value)['sha256']}" if is_sensitive(name) else value


def _sources(plan: Plan, node: CopyNode) -> list[str]:
    found = []
    for source in node.sources:
        if isinstance(source, CopyFiles):
            path = source.path if source.pattern is None else f"{source.path.rstrip('/')}/{source.pattern}"
            if isinstance(source.tree, FromNode):
                found.append(f"{_origin(plan.nodes[source.tree.node])}:{path}")
            else:
                name = getattr(source.tree, "name", "")
                found.append(f"{name}:{path}" if name else path.lstrip("/") or ".")
        elif isinstance(source, (CopyUrl, CopyGit)):
            found.append(_hidden(source.url, node))
        elif isinstance(source, CopyInline):
            found.append(f"<<{source.name}")
    return found


def _hidden(url: str, node: CopyNode) -> str:
    """A URL without who asks for it, and without what variables that look like secrets put into it."""
    for _, name, value in node.variables:
        if value and is_sensitive(name):
            url = url.replace(value, "***")
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else url


def _origin(node: AnyNode) -> str:
    if isinstance(node, ImageNode):
        return node.image.layout or references.parse(node.image.reference).familiar
    return node.stage if not isinstance(node, TreeNode) else node.context
