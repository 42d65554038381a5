"""The layers of COPY and ADD: placed over the parent, looked up once more, and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from builder.filesystem.blocks import Damaged
from builder.filesystem.compress import LayerBlob
from builder.plan.steps import CopyNode
from builder.solver.assemble import write_layer
from builder.solver.cache import Made, now, now_ns
from builder.solver.environment import Environment
from builder.solver.gather import Destination, FilesSource, Source
from builder.solver.keys import (
    Recipe,
    copy_by_content,
    encode,
    exact_recipe,
    facts,
    key_of,
    key_of_encoded,
    placed_recipe,
)
from builder.solver.outline import keep_outline, outline_of, seen_tree
from builder.solver.place import Ownership
from builder.solver.recycle import FEWEST, Recycler
from builder.solver.roots import EmptyTree, Layers
from builder.solver.staging import Staged, Staging, TreeContent
from builder.solver.trace import Origin, Trace
from builder.solver.users import check_owner, find_owner
from builder.solver.waiting import Waiting
from builder.store.records import RecipeRecord

if TYPE_CHECKING:
    from builder.solver.erofs_copy import ErofsCopy


class CopyMaker:
    """Makes the layer of one COPY or ADD. `recognised` gives its recipe by the sources' identities, if they have some;
    by that it was not found. `followed` and `mounted` as for `copy`."""

    def __init__(
        self,
        environment: Environment,
        node: CopyNode,
        sources: Sequence[Source],
        trace: Trace,
        recognised: Callable[[], Recipe | None],
        *,
        followed: bool,
        mounted: bool,
    ) -> None:
        self._environment = environment
        self._node = node
        self._sources = sources
        self._trace = trace
        self._recognised = recognised
        self._followed = followed
        self._mounted = mounted
        self._encoded = b""  # the recipe by content, once that is known
        self._outline: bytes | None = None

    def make(self, parent: Layers) -> Made:
        """Make it over the layers of the parent."""
        environment, trace = self._environment, self._trace
        with environment.store.scratch() as scratch:
            trace.origin = origin_of(environment, self._sources)
            staging, owner = stage_copy(environment, self._node, parent, self._sources, scratch)
            asked = facts(staging.facts())
            made = self._find(asked, owner) if self._recognised() is not None else None
            if made is None:
                made = self._layer(staging, asked, owner, scratch)
        if not made.cached:
            record = environment.store.layers.record(made.diff_id)
            environment.copied(self._node, self._sources, record.uncompressed if record is not None else 0)
        quick = self._recognised()  # by now everything has been read
        if quick is not None:
            trace.key = key_of(quick)
            known_as = quick
            if trace.inexact:
                known_as = placed_recipe(trace.key, trace.place)
                environment.store.database.add_recipe(RecipeRecord(trace.key, encode(quick), trace.content))
            environment.cache.remember(known_as, made, trace.place, content=trace.content)
        return made

    def _find(self, asked: Recipe, owner: list[int] | None) -> Made | None:
        """Look it up by the content of its sources, which is known, and what it asked of its parent."""
        self._set_recipe(asked, owner)
        made = self._look_up()
        if made is not None:
            self._remember(made)
        else:
            self._trace.missed(self._encoded)
        return made

    def _layer(self, staging: Staging, asked: Recipe, owner: list[int] | None, scratch: str) -> Made:
        """Write it, unless what was read turns out to be known; keep what later builds may ask of it."""
        environment = self._environment

        def tell(last: bool) -> None:
            """Say what was read, and what it differs in, while threads work on the layer. What only another try to
            write it would need is not kept the `last` time: of many files it takes much memory."""
            self._outline = outline_of(staging, environment.epoch) if self._followed else None
            if last:
                staging.clear()
            self._set_recipe(asked, owner)
            if self._trace.recipe is None and self._look_up() is None:
                quick = self._recognised()
                self._trace.key = key_of(quick) if quick is not None else ""
                self._trace.missed(self._encoded)
            if last:
                for source in self._sources:
                    if isinstance(source, FilesSource):
                        source.forget()

        blob, recycler, erofs = self._write(staging, scratch, tell)
        staging.clear()
        waiting = Waiting(environment, f"{self._node.label} waits for another that stores the same layer")
        with environment.cache.hold(self._trace.content, waiting):  # another build may have made it meanwhile
            made = self._look_up()
            if made is None:
                environment.store.layers.add(blob)
                if erofs is not None and erofs.complete:
                    environment.store.unpacked.adopt_erofs(blob, erofs.path)
                made = Made(blob.diff_id, now(environment.epoch))
                keep_outline(environment, blob.diff_id, self._outline)
                if recycler is not None:
                    recycler.keep(blob)
            self._remember(made)
        return made

    def _write(
        self, staging: Staging, scratch: str, tell: Callable[[bool], None]
    ) -> tuple[LayerBlob, Recycler | None, ErofsCopy | None]:
        """Write the layer, of a context's many files with what is left of the one that this step made before, or beside
        it what a command will have mounted."""
        environment = self._environment
        write = partial(
            write_layer,
            staging,
            scratch,
            compression=environment.compression,
            epoch=environment.epoch,
            observe=_observer(self._sources),
            guard=environment.guard,
        )
        files = [source for source in self._sources if isinstance(source, FilesSource) and source.layers is None]
        if environment.guard is not None or sum(len(match.items) for one in files for match in one.matches) < FEWEST:
            return write(meanwhile=partial(tell, True)), None, None
        digest_of = _digests_of(files)
        place, afresh = self._trace.place, self._node.ignore_cache
        recycler = Recycler(environment.store, place, digest_of, afresh=afresh)
        if recycler.recycles:
            try:
                with closing(recycler):
                    return write(recycler=recycler, meanwhile=partial(tell, False)), recycler, None
            except Damaged:
                recycler = Recycler(environment.store, place, digest_of, afresh=True)
        recycler.close()  # an earlier layer that is of no use
        if not (self._mounted and environment.store.unpacked.takes_erofs):
            return write(recycler=recycler, meanwhile=partial(tell, True)), recycler, None
        from builder.solver.erofs_copy import ErofsCopy

        with closing(ErofsCopy(f"{scratch}/erofs")) as erofs:
            return write(recycler=recycler, erofs=erofs, meanwhile=partial(tell, True)), recycler, erofs

    def _set_recipe(self, asked: Recipe, owner: list[int] | None) -> None:
        contents = [source.content() for source in self._sources]
        self._encoded = encode(copy_by_content(self._node, contents, asked, owner, self._environment.epoch))
        self._trace.content = key_of_encoded(self._encoded)

    def _look_up(self) -> Made | None:
        if self._node.ignore_cache:
            return None
        return look_up_content(self._environment, self._sources, self._trace)

    def _remember(self, made: Made) -> None:
        """Keep the result by the key of its content, with the recipe that this is the key of."""
        cache, trace = self._environment.cache, self._trace
        cache.remember_encoded(trace.content, self._encoded, made, trace.place)
        times = _times(self._sources)
        if times is not None and not trace.inexact:
            cache.remember(exact_recipe(trace.content, times), made, trace.place, content=trace.content)


def stage_copy(
    environment: Environment, node: CopyNode, parent: Layers, sources: Sequence[Source], scratch: str
) -> tuple[Staging, list[int] | None]:
    """What a COPY or ADD puts over its parent, and the owner that --chown means there."""
    tree = EmptyTree() if node.link else seen_tree(environment, parent)
    staging = Staging(tree)
    owners = seen_tree(environment, parent) if node.link and node.owner_is_named else tree
    if node.chown and not parent:
        check_owner(node.chown, "--chown")
    owner = find_owner(owners, node.chown) if node.chown else None
    ownership = Ownership(owner, node.chmod, now_ns(environment.epoch))
    destination = Destination(node.destination, ownership, scratch, lambda: environment.store.limits)
    for source in sources:
        environment.check_cancelled()
        source.place(staging, destination)
    return staging, list(owner) if owner else None


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


def origin_of(environment: Environment, sources: Sequence[Source]) -> Origin | None:
    """Tells which layer a file comes from that is copied from a stage; None where nothing is."""
    staged = next((source for source in sources if isinstance(source, FilesSource) and source.layers), None)
    if staged is None:
        return None

    def origin(path: str) -> str | None:
        layers = staged.layers or ()
        tree = environment.store.unpacked.tree(layers)
        with tree:
            found = tree.find(path)
            directory = tree.directories[found[1]] if found is not None and found[1] >= 0 else None
        paths = environment.store.unpacked.paths(layers)
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
