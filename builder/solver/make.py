"""The layers of COPY, ADD and WORKDIR: placed over the parent, looked up once more, and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from builder.filesystem.blocks import Damaged
from builder.filesystem.compress import LayerBlob
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo, Kind
from builder.plan.paths import clean
from builder.plan.steps import CopyNode, WorkdirNode
from builder.solver.assemble import write_layer
from builder.solver.cache import Made, now
from builder.solver.copy import hide
from builder.solver.environment import Environment
from builder.solver.gather import Destination, FilesSource, Source
from builder.solver.keys import (
    Recipe,
    copy_recipe,
    encode,
    exact_recipe,
    facts,
    key_of,
    key_of_encoded,
    placed_recipe,
    workdir_recipe,
)
from builder.solver.outline import keep_outline, outline_of, seen_tree
from builder.solver.place import Ownership, make_directories
from builder.solver.recycle import FEWEST, Recycler
from builder.solver.roots import EmptyTree, Layers
from builder.solver.staging import Staged, Staging, TreeContent
from builder.solver.trace import Origin, Trace
from builder.solver.users import find_owner
from builder.store.records import RecipeRecord

if TYPE_CHECKING:
    from builder.solver.erofs_copy import ErofsCopy


def make_copy(
    environment: Environment,
    node: CopyNode,
    parent: Layers,
    sources: Sequence[Source],
    flags: Recipe,
    recognised: Callable[[], Recipe | None],
    trace: Trace,
    *,
    followed: bool,
    mounted: bool,
) -> Made:
    """Make the layer of a COPY or ADD. `followed` and `mounted` as for `copy`; `recognised` gives the recipe by the
    sources' identities, if they have some; by that it was not found."""
    with environment.store.scratch() as scratch:
        trace.origin = origin_of(environment, sources)
        staging, owner = stage_copy(environment, node, parent, sources, scratch)
        flags = {**flags, "owner": owner}
        contents = [source.content() for source in sources] if recognised() is not None else None
        made = _finish(
            environment, node, staging, sources, contents, flags, trace, scratch, recognised, followed, mounted
        )
    if not made.cached:
        record = environment.store.layers.record(made.diff_id)
        environment.copied(node, sources, record.uncompressed if record is not None else 0)
    quick = recognised()  # by now everything has been read
    if quick is not None:
        trace.key = key_of(quick)
        known_as = quick
        if trace.inexact:
            known_as = placed_recipe(trace.key, trace.place)
            environment.store.database.add_recipe(RecipeRecord(trace.key, encode(quick), trace.content))
        environment.cache.remember(known_as, made, trace.place, content=trace.content)
    return made


def stage_copy(
    environment: Environment, node: CopyNode, parent: Layers, sources: Sequence[Source], scratch: str
) -> tuple[Staging, list[int] | None]:
    """What a COPY or ADD puts over its parent, and the owner that --chown means there."""
    tree = EmptyTree() if node.link else seen_tree(environment, parent)
    staging = Staging(tree)
    owners = seen_tree(environment, parent) if node.link and node.owner_is_named else tree
    owner = find_owner(owners, node.chown) if node.chown else None
    ownership = Ownership(owner, node.chmod, _now_ns(environment))
    destination = Destination(node.destination, ownership, scratch, lambda: environment.store.limits)
    for source in sources:
        environment.check_cancelled()
        source.place(staging, destination)
    return staging, list(owner) if owner else None


def make_workdir(
    environment: Environment,
    node: WorkdirNode,
    parent: Layers,
    settings: Recipe,
    quick: Recipe,
    trace: Trace,
    *,
    followed: bool,
) -> Made:
    """Make the layer of a WORKDIR."""
    staging, owner = stage_workdir(environment, node, parent)
    recipe = encode(hide(workdir_recipe(node, facts(staging.facts()), {**settings, "owner": owner}), node))
    trace.content = key_of_encoded(recipe)
    made = None if node.ignore_cache else environment.cache.find(trace.content)
    if made is None:
        trace.missed(recipe)
        with environment.store.scratch() as scratch:
            blob = write_layer(
                staging,
                scratch,
                compression=environment.compression,
                epoch=environment.epoch,
                guard=environment.guard,
            )
            environment.store.layers.add(blob)
        if followed:
            keep_outline(environment, blob.diff_id, outline_of(staging, environment.epoch))
        made = Made(blob.diff_id, now(environment.epoch))
    environment.cache.remember_encoded(trace.content, recipe, made, trace.place)
    environment.cache.remember(quick, made, trace.place, content=trace.content)
    return made


def stage_workdir(environment: Environment, node: WorkdirNode, parent: Layers) -> tuple[Staging, list[int]]:
    """The directories that a WORKDIR makes over its parent, and their owner."""
    tree = seen_tree(environment, parent)
    staging = Staging(tree)
    owner = find_owner(tree, node.user) if node.user else (0, 0)
    directory = FileInfo(Kind.DIRECTORY, 0o755, owner[0], owner[1], 0, _now_ns(environment))
    make_directories(staging, resolve(staging, clean(node.path)), directory)
    return staging, list(owner)


def _finish(
    environment: Environment,
    node: CopyNode,
    staging: Staging,
    sources: Sequence[Source],
    contents: list[object] | None,
    flags: Recipe,
    trace: Trace,
    scratch: str,
    recognised: Callable[[], Recipe | None],
    followed: bool,
    mounted: bool,
) -> Made:
    """Look up by content and facts; write the layer where that finds nothing."""
    asked = hide(facts(staging.facts()), node)
    if contents is not None:
        encoded = encode(copy_recipe(contents, flags, asked))
        trace.content = key_of_encoded(encoded)
        made = None if node.ignore_cache else look_up_content(environment, sources, trace)
        if made is not None:
            _remember(environment, sources, encoded, made, trace)
            return made
        trace.missed(encoded)
    encoded = b""
    outline: bytes | None = None

    def tell(last: bool) -> None:
        """Say what was read, and what it differs in, while threads work on the layer. What only another try to write it
        would need is not kept the `last` time: of many files it takes much memory."""
        nonlocal encoded, outline
        outline = outline_of(staging, environment.epoch) if followed else None
        if last:
            staging.clear()
        encoded = encode(copy_recipe([source.content() for source in sources], flags, asked))
        trace.content = key_of_encoded(encoded)
        if trace.recipe is None and (node.ignore_cache or look_up_content(environment, sources, trace) is None):
            quick = recognised()
            trace.key = key_of(quick) if quick is not None else ""
            trace.missed(encoded)
        if last:
            for source in sources:
                if isinstance(source, FilesSource):
                    source.forget()

    blob, recycler, erofs = _write(environment, node, staging, sources, scratch, trace, tell, mounted)
    staging.clear()
    with environment.cache.hold(trace.content):  # it may be known by now, or another build made it meanwhile
        made = None if node.ignore_cache else look_up_content(environment, sources, trace)
        if made is None:
            environment.store.layers.add(blob)
            if erofs is not None and erofs.complete:
                environment.store.layers.adopt_erofs(blob, erofs.path)
            made = Made(blob.diff_id, now(environment.epoch))
            keep_outline(environment, blob.diff_id, outline)
            if recycler is not None:
                recycler.keep(blob)
        _remember(environment, sources, encoded, made, trace)
    return made


def _write(
    environment: Environment,
    node: CopyNode,
    staging: Staging,
    sources: Sequence[Source],
    scratch: str,
    trace: Trace,
    tell: Callable[[bool], None],
    mounted: bool,
) -> tuple[LayerBlob, Recycler | None, ErofsCopy | None]:
    """Write the layer, of a context's many files with what is left of the one that this step made before, or with its
    image if that is to be `mounted`."""

    write = partial(
        write_layer,
        staging,
        scratch,
        compression=environment.compression,
        epoch=environment.epoch,
        observe=_observer(sources),
        guard=environment.guard,
    )
    files = [source for source in sources if isinstance(source, FilesSource) and source.layers is None]
    if environment.guard is not None or sum(len(match.items) for one in files for match in one.matches) < FEWEST:
        return write(meanwhile=partial(tell, True)), None, None
    digest_of = _digests_of(files)
    recycler = Recycler(environment.store, trace.place, digest_of, afresh=node.ignore_cache)
    if recycler.recycles:
        try:
            with closing(recycler):
                return write(recycler=recycler, meanwhile=partial(tell, False)), recycler, None
        except Damaged:
            recycler = Recycler(environment.store, trace.place, digest_of, afresh=True)
    recycler.close()  # an earlier layer that is of no use
    if not (mounted and environment.store.layers.takes_erofs):
        return write(recycler=recycler, meanwhile=partial(tell, True)), recycler, None
    from builder.solver.erofs_copy import ErofsCopy

    with closing(ErofsCopy(f"{scratch}/image")) as erofs:
        return write(recycler=recycler, erofs=erofs, meanwhile=partial(tell, True)), recycler, erofs


def look_up_content(environment: Environment, sources: Sequence[Source], trace: Trace) -> Made | None:
    """A copy's result by the key of its content. Times are no part of that: a stage that ran again and made the same
    files keeps what comes after it. But what another Dockerfile copied from a stage of its own serves only if the times
    agree too."""
    times = _times(sources)
    if times is None:
        return environment.cache.find(trace.content)
    exact = environment.cache.look_up(exact_recipe(trace.content, times))
    if exact is not None:
        return exact
    found = environment.cache.find(trace.content, lineage=trace.place)
    trace.inexact = found is not None
    return found


def _remember(environment: Environment, sources: Sequence[Source], encoded: bytes, made: Made, trace: Trace) -> None:
    """Keep a result by the key of its content, with the recipe that this is the key of."""
    environment.cache.remember_encoded(trace.content, encoded, made, trace.place)
    times = _times(sources)
    if times is not None and not trace.inexact:
        environment.cache.remember(exact_recipe(trace.content, times), made, trace.place, content=trace.content)


def origin_of(environment: Environment, sources: Sequence[Source]) -> Origin | None:
    """Tells which layer a file comes from that is copied from a stage; None where nothing is."""
    staged = next((source for source in sources if isinstance(source, FilesSource) and source.layers), None)
    if staged is None:
        return None

    def origin(path: str) -> str | None:
        layers = staged.layers or ()
        tree = environment.store.layers.tree(layers)
        with tree:
            found = tree.find(path)
            directory = tree.directories[found[1]] if found is not None and found[1] >= 0 else None
        paths = environment.store.layers.paths(layers)
        return next(
            (layer for layer, known in reversed([*zip(layers, paths, strict=True)]) if known == directory), None
        )

    return origin


def _times(sources: Sequence[Source]) -> list[int] | None:
    """The times of what is taken from stages; None if nothing is."""
    taken = [source.times() for source in sources if isinstance(source, FilesSource) and source.layers is not None]
    return [time for times in taken for time in times] if taken else None


def _observer(sources: Sequence[Source]) -> Callable[[Staged, bytes], None]:
    """Hands the digests that writing computes to the sources whose files they are."""

    def observe(staged: Staged, digest: bytes) -> None:
        content = staged.content
        if isinstance(content, TreeContent):
            for source in sources:
                if isinstance(source, FilesSource) and source.tree is content.tree:
                    source.observe(content.path, digest)

    return observe


def _digests_of(sources: Sequence[FilesSource]) -> Callable[[Staged], bytes | None]:
    """Tells what is known of the content of these sources' files."""

    known = [(source.tree, source.digests()) for source in sources]

    def digest_of(staged: Staged) -> bytes | None:
        content = staged.content
        if isinstance(content, TreeContent) and content.offset is None:
            for tree, digests in known:
                if tree is content.tree and (digest := digests.get(content.path)) is not None:
                    return digest
        return None

    return digest_of


def _now_ns(environment: Environment) -> int:
    return int(now(environment.epoch) * 1_000_000_000)
