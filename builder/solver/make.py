"""The layers of COPY, ADD and WORKDIR: placed over the parent, looked up once more, and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo, Kind
from builder.plan.paths import clean
from builder.plan.steps import CopyNode, WorkdirNode
from builder.solver.assemble import write_layer
from builder.solver.cache import Made, now
from builder.solver.environment import Environment
from builder.solver.gather import Destination, FilesSource, Source
from builder.solver.keys import Recipe, copy_recipe, facts, workdir_recipe
from builder.solver.place import Ownership, make_directories
from builder.solver.roots import EmptyTree, Layers, root_tree
from builder.solver.staging import Staging, TreeContent
from builder.solver.users import find_owner


def make_copy(
    environment: Environment,
    node: CopyNode,
    parent: Layers,
    sources: Sequence[Source],
    flags: Recipe,
    recognised: Callable[[], Recipe | None],
    lineage: str,
) -> Made:
    """Make the layer of a COPY or ADD. `recognised` gives the recipe by the sources' identities, if they have some; by
    that it was not found."""
    tree = EmptyTree() if node.link else root_tree(environment, parent)
    staging = Staging(tree)
    owners = root_tree(environment, parent) if node.link and node.owner_is_named else tree
    owner = find_owner(owners, node.chown) if node.chown else None
    ownership = Ownership(owner, node.chmod, _now_ns(environment))
    flags = {**flags, "owner": list(owner) if owner else None}
    with environment.store.scratch() as scratch:
        for source in sources:
            environment.check_cancelled()
            source.place(staging, Destination(node.destination, ownership, scratch))
        contents = [source.content() for source in sources] if recognised() is not None else None
        made = _finish(environment, node.ignore_cache, staging, sources, contents, flags, lineage, scratch)
    quick = recognised()  # by now everything has been read
    if quick is not None:
        environment.cache.remember(quick, made, lineage)
    return made


def make_workdir(
    environment: Environment, node: WorkdirNode, parent: Layers, settings: Recipe, quick: Recipe, lineage: str
) -> Made:
    """Make the layer of a WORKDIR."""
    tree = root_tree(environment, parent)
    staging = Staging(tree)
    owner = find_owner(tree, node.user) if node.user else (0, 0)
    directory = FileInfo(Kind.DIRECTORY, 0o755, owner[0], owner[1], 0, _now_ns(environment))
    make_directories(staging, resolve(staging, clean(node.path)), directory)
    recipe = workdir_recipe(node, facts(staging.facts()), {**settings, "owner": list(owner)})
    made = None if node.ignore_cache else environment.cache.look_up(recipe)
    if made is None:
        with environment.store.scratch() as scratch:
            blob = write_layer(staging, scratch, compression=environment.compression, epoch=environment.epoch)
            environment.store.layers.add(blob)
        made = Made(blob.diff_id, now(environment.epoch))
    environment.cache.remember(recipe, made, lineage)
    environment.cache.remember(quick, made, lineage)
    return made


def _finish(
    environment: Environment,
    ignore_cache: bool,
    staging: Staging,
    sources: Sequence[Source],
    contents: list[object] | None,
    flags: Recipe,
    lineage: str,
    scratch: str,
) -> Made:
    """Look up by content and facts; write the layer where that finds nothing."""
    asked = facts(staging.facts())

    def found() -> Made | None:
        if contents is None or ignore_cache:
            return None
        return _look_up(environment, sources, copy_recipe(contents, flags, asked), lineage)

    made = found()
    if made is None:
        blob = write_layer(
            staging,
            scratch,
            compression=environment.compression,
            epoch=environment.epoch,
            observe=_observer(sources, staging),
        )
        contents = [source.content() for source in sources]
        made = found()
        if made is None:
            environment.store.layers.add(blob)
            made = Made(blob.diff_id, now(environment.epoch))
    assert contents is not None
    recipe = copy_recipe(contents, flags, asked)
    for known_as in (recipe, _with_times(recipe, sources)):
        if known_as is not None:
            environment.cache.remember(known_as, made, lineage)
    return made


def _look_up(environment: Environment, sources: Sequence[Source], recipe: Recipe, lineage: str) -> Made | None:
    """A step's result by content. Times are no part of that: a stage that ran again and made the same files keeps what
    comes after it. But what another Dockerfile copied from a stage of its own serves only if the times agree too.
    """
    exact = _with_times(recipe, sources)
    if exact is None:
        return environment.cache.look_up(recipe)
    return environment.cache.look_up(exact) or environment.cache.look_up(recipe, lineage=lineage)


def _with_times(recipe: Recipe, sources: Sequence[Source]) -> Recipe | None:
    """The recipe with the times of files that come from stages; None if none do."""
    times = [source.times() for source in sources if isinstance(source, FilesSource) and source.layers is not None]
    return {**recipe, "times": times} if times else None


def _observer(sources: Sequence[Source], staging: Staging) -> Callable[[str, str], None]:
    """Hands the digests that writing computes to the sources whose files they are."""

    def observe(path: str, digest: str) -> None:
        staged = staging.staged(path)
        content = staged.content if staged is not None else None
        if isinstance(content, TreeContent):
            for source in sources:
                if isinstance(source, FilesSource) and source.tree is content.tree:
                    source.observe(content.path, digest)

    return observe


def _now_ns(environment: Environment) -> int:
    return int(now(environment.epoch) * 1_000_000_000)
