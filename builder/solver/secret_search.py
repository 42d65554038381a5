"""Searches for secrets what a build says before it runs anything, and the layers that it takes from the step cache.

A layer that this build writes is searched while it is written (`secrets`). One that an earlier build wrote was searched
for the secrets of that build, which may have been given none: `COPY . /app`, built without `--secret`, may hold the
file that is a secret now. So the layers of cached steps that become part of the image are searched once for each
secret, and it is remembered by the secret's name which layers were. Nothing that could be compared with a value is
kept, not even keyed: a store is often copied, as by caches of CI systems, and its key with it. So a layer is not
searched anew when the same secret gets another value: what was made before cannot hold that, unless it was somewhere
else already.

Not searched are the layers of base images, which others have published, and those of stages that the image does not
contain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from builder.plan.locate import Locator
from builder.plan.steps import AnyNode, CopyNode, Plan, RunNode, WorkdirNode
from builder.solver.secrets import SecretLeak, leak
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.solver.secret_forms import Form
    from builder.solver.secrets import Guard
    from builder.solver.solve import Root

_SEARCHED = "searched-1"
_SAID = "the log, the build's record and the cache key"
_REMEDY = (
    "give it to a step by RUN --mount=type=secret alone: what is an argument, a variable or a word, many will read"
)
_PIECE = 1 << 20


def search_dockerfile(guard: Guard, name: str, text: bytes) -> None:
    """Search the Dockerfile, which the store remembers. Raises SecretLeak."""
    form = guard.find(text)
    if form is None:
        return
    error = SecretLeak(f"the Dockerfile holds the value of {form}", remedy=_REMEDY)
    line = text.count(b"\n", 0, text.index(form.data)) + 1
    error.place = f"{name}:{line}"
    raise error


def search_plan(guard: Guard, plan: Plan, locate: Locator) -> None:
    """Search the instructions, with what their arguments became: they are shown, recorded, and in cache keys; then
    the histories and configurations. Raises SecretLeak."""
    for node in plan.nodes:
        with locate(node):
            try:
                guard.check(_said(node), _kind(node), _SAID)
            except SecretLeak as error:
                error.remedy = _REMEDY
                raise
    for image in plan.images:
        for line in image.history:
            guard.check(line.created_by, f"the line {line.created_by!r} of the history")
        guard.check(msgspec.to_builtins(image.config), "the configuration")


def _kind(node: AnyNode) -> str:
    return node.label.partition("] ")[2].partition(" ")[0] or "step"


def _said(node: AnyNode) -> dict[str, object]:
    """What of a step is shown or kept. The variables around it are looked at where something takes them."""
    said: dict[str, object] = {"variables": {name: value for _, name, value in node.variables}}
    if isinstance(node, RunNode):
        said |= {"environment": dict(node.env), "command": node.argv, "script": node.script or (), "user": node.user}
        said |= {"directory": node.workdir, "mounts": msgspec.to_builtins(node.mounts)}
    elif isinstance(node, CopyNode):
        said |= {"sources": msgspec.to_builtins(node.sources), "destination": node.destination, "owner": node.chown}
    elif isinstance(node, WorkdirNode):
        said |= {"directory": node.path}
    return {**said, "words": node.label}


def search_layers(guard: Guard, store: Store, plan: Plan, roots: Mapping[int, Root], locate: Locator) -> None:
    """Search those layers of the images that were not searched for all secrets yet. Raises SecretLeak."""
    if not guard.searched:
        return
    for node, diff_id, cached in _own_layers(plan, roots):
        wanted = [secret for secret in guard.searched if store.database.memo(_SEARCHED, f"{diff_id} {secret}") is None]
        if not wanted:
            continue
        if cached:
            with locate(node):
                _search_layer(guard, store, diff_id)
        for secret in wanted:
            store.database.add_memo(_SEARCHED, f"{diff_id} {secret}", b"")


def _own_layers(plan: Plan, roots: Mapping[int, Root]) -> Iterator[tuple[AnyNode, str, bool]]:
    """The steps that an image consists of, each with the diff ID of its layer and whether that was there already."""
    seen: set[int] = set()
    waiting = [image.node for image in plan.images]
    while waiting:
        number = waiting.pop()
        node = plan.nodes[number]
        if number in seen or not isinstance(node, (RunNode, CopyNode, WorkdirNode)):
            continue
        seen.add(number)
        waiting.append(node.parent)
        yield node, roots[number].layers[-1], roots[number].cached


def _search_layer(guard: Guard, store: Store, diff_id: str) -> None:
    """Search a layer as a stream; only one that has a secret is read as an archive, to name the file."""
    search = guard.search()
    stream = store.layers.open_tar(diff_id)
    while piece := stream.read(_PIECE):
        form = search.feed(piece)
        if form is not None:
            error = leak(form, _place(guard, store, diff_id, form), "the image, in a layer of the step cache")
            error.remedy = f"{error.remedy}; 'builder prune -a --cache' removes the layer, which an earlier build made"
            raise error


def _place(guard: Guard, store: Store, diff_id: str, form: Form) -> str:
    """Which file of a layer holds a secret."""
    from builder.filesystem.archive import TarReader

    writer = guard.writer(lambda data: None)
    stream = store.layers.open_tar(diff_id)
    try:
        for entry in TarReader(iter(lambda: stream.read(_PIECE), b"")):
            writer.add(
                entry.path,
                entry.info,
                xattrs=entry.xattrs,
                content=map(bytes, entry.content.chunks()),
                hardlink=entry.hardlink,
            )
    except SecretLeak as found:
        return found.cause.rpartition(": ")[2]
    return f"layer {diff_id}"
