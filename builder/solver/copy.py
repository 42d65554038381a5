"""COPY, ADD and WORKDIR, and contexts as root file systems: layers made from files, without running anything.

A step is looked up twice. First by its sources' identity and its parent's layers, which needs no look at the parent;
then by its sources' content and the facts it asked of its parent, so that a new base image with the same directories
does not redo the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo, FileTree, Kind
from builder.oci.spec import Platform
from builder.plan.paths import clean
from builder.plan.steps import (
    CopyFiles,
    CopyGit,
    CopyInline,
    CopyNode,
    CopySource,
    CopyUrl,
    FromContext,
    FromNode,
    TreeNode,
    WorkdirNode,
)
from builder.solver.assemble import write_layer
from builder.solver.cache import Made, now
from builder.solver.environment import Environment
from builder.solver.fingerprints import Fingerprints
from builder.solver.gather import Destination, FilesSource, InlineSource, Source
from builder.solver.keys import Recipe, copy_recipe, facts, workdir_recipe
from builder.solver.place import Ownership, make_directories
from builder.solver.staging import Staging
from builder.solver.users import find_owner

Layers = tuple[str, ...]
_ANY = Platform("linux", "")


class EmptyTree:
    """The root of `FROM scratch`."""

    def lstat(self, path: str) -> FileInfo | None:
        return None if path else FileInfo(Kind.DIRECTORY, 0o755)

    def scan(self, path: str) -> list[tuple[str, FileInfo]]:
        return []

    def open(self, path: str) -> int:
        raise FileNotFoundError(path)

    def xattrs(self, path: str) -> dict[str, bytes]:
        return {}


def root_tree(environment: Environment, layers: Layers) -> FileTree:
    """The files of a stack of layers; they are fetched and unpacked now if they were not."""
    return environment.store.layers.tree(layers) if layers else EmptyTree()


def copy(environment: Environment, node: CopyNode, parent: Layers, roots: dict[int, Layers], lineage: str) -> Made:
    """Run a COPY or ADD, or find it in the cache. `roots` are the layers of the nodes that it copies from."""
    with environment.store.scratch() as scratch:
        sources = [_source(environment, node, source, roots, scratch) for source in node.sources]
        flags = _flags(environment, node)
        identities = [source.identity() for source in sources]
        base: Layers = () if node.link else parent
        quick = copy_recipe(identities, flags, {"parent": list(base)}) if None not in identities else None
        if quick is not None and not node.ignore_cache:
            found = environment.cache.look_up(quick)
            if found is not None:
                return found
        tree = EmptyTree() if node.link else root_tree(environment, base)
        staging = Staging(tree)
        owners = root_tree(environment, parent) if node.chown and _named(node.chown) else tree
        owner = find_owner(owners, node.chown) if node.chown else None
        ownership = Ownership(owner, node.chmod, _now_ns(environment))
        for source in sources:
            environment.check_cancelled()
            source.place(staging, Destination(node.destination, ownership, scratch))
        contents = [source.content() for source in sources] if quick is not None else None
        flags = {**flags, "owner": list(owner) if owner else None}
        return _finish(environment, node.ignore_cache, staging, sources, contents, flags, quick, lineage, scratch)


def _finish(
    environment: Environment,
    ignore_cache: bool,
    staging: Staging,
    sources: Sequence[Source],
    contents: list[object] | None,
    flags: Recipe,
    quick: Recipe | None,
    lineage: str,
    scratch: str,
) -> Made:
    """Look up by content and facts; write the layer where that finds nothing."""
    asked = facts(staging.facts())
    made: Made | None = None
    if contents is not None and not ignore_cache:
        made = environment.cache.look_up(copy_recipe(contents, flags, asked))
    if made is None:
        blob = write_layer(staging, scratch, epoch=environment.epoch, observe=_observer(staging, sources))
        contents = [source.content() for source in sources]
        made = None if ignore_cache else environment.cache.look_up(copy_recipe(contents, flags, asked))
        if made is None:
            environment.store.layers.add(blob)
            made = Made(blob.diff_id, now(environment.epoch))
    assert contents is not None
    environment.cache.remember(copy_recipe(contents, flags, asked), made, lineage)
    if quick is not None:
        environment.cache.remember(quick, made, lineage)
    return made


def _observer(staging: Staging, sources: Sequence[Source]) -> Callable[[str, str], None]:
    """Hands the digests that writing computes to the sources whose files they are."""
    by_tree: dict[int, FilesSource] = {}
    for source in sources:
        if isinstance(source, FilesSource):
            by_tree[id(source.tree)] = source

    def observe(path: str, digest: str) -> None:
        staged = staging.staged(path)
        content = staged.content if staged is not None else None
        tree = getattr(content, "tree", None)
        if tree is not None and id(tree) in by_tree:
            for source in sources:
                if isinstance(source, FilesSource) and source.tree is tree:
                    source.observe(content.path, digest)  # type: ignore[union-attr]

    return observe


def _flags(environment: Environment, node: CopyNode) -> Recipe:
    return {
        "destination": node.destination,
        "chown": node.chown,
        "chmod": node.chmod,
        "link": node.link,
        "excludes": list(node.excludes),
        "epoch": environment.epoch,
    }


def _source(
    environment: Environment, node: CopyNode, source: CopySource, roots: dict[int, Layers], scratch: str
) -> Source:
    if isinstance(source, CopyInline):
        return InlineSource(source)
    if isinstance(source, CopyFiles):
        return _files(environment, source, node.excludes, roots)
    from builder.solver import remote

    if isinstance(source, CopyUrl):
        return remote.url_source(environment, source, node.chmod, scratch)
    assert isinstance(source, CopyGit)
    return remote.git_source(environment, source, node.excludes, scratch)


def _files(
    environment: Environment, source: CopyFiles, excludes: tuple[str, ...], roots: dict[int, Layers]
) -> FilesSource:
    if isinstance(source.tree, FromNode):
        layers = roots[source.tree.node]
        return FilesSource(source, lambda: root_tree(environment, layers), excludes, layers=layers)
    if isinstance(source.tree, FromContext):
        name = source.tree.name
        prints = Fingerprints(environment.store.database)
        return FilesSource(source, lambda: environment.contexts.tree(name), excludes, fingerprints=prints)
    return FilesSource(source, EmptyTree, excludes, layers=())


def workdir(environment: Environment, node: WorkdirNode, parent: Layers, lineage: str) -> Made:
    """Make a working directory with its parents, or an empty layer if it is there."""
    settings: Recipe = {"epoch": environment.epoch}
    quick = workdir_recipe(node, {"parent": list(parent)}, settings)
    found = environment.cache.look_up(quick)
    if found is not None and not node.ignore_cache:
        return found
    tree = root_tree(environment, parent)
    staging = Staging(tree)
    owner = find_owner(tree, node.user) if node.user else (0, 0)
    made_directory = FileInfo(Kind.DIRECTORY, 0o755, owner[0], owner[1], 0, _now_ns(environment))
    make_directories(staging, resolve(staging, clean(node.path)), made_directory)
    recipe = workdir_recipe(node, facts(staging.facts()), {**settings, "owner": list(owner)})
    made = None if node.ignore_cache else environment.cache.look_up(recipe)
    if made is None:
        with environment.store.scratch() as scratch:
            blob = write_layer(staging, scratch, epoch=environment.epoch)
            environment.store.layers.add(blob)
        made = Made(blob.diff_id, now(environment.epoch))
    environment.cache.remember(recipe, made, lineage)
    environment.cache.remember(quick, made, lineage)
    return made


def context_layer(environment: Environment, context: str, path: str, destination: str, lineage: str) -> Made:
    """A layer with what a context holds at `path`, put at `destination`: for FROM and for mounts of a context."""
    node = CopyNode(
        label=f"load {context or 'context'}",
        stage="",
        platform=_ANY,
        parent=0,
        sources=(CopyFiles(tree=FromContext(context), path=path),),
        destination=destination,
        link=True,
    )
    return copy(environment, node, (), {}, lineage)


def tree_root(environment: Environment, node: TreeNode, lineage: str) -> Made:
    """The layer of a directory that FROM names."""
    return context_layer(environment, node.context, "/", "/", lineage)


def _named(owner: str) -> bool:
    """Whether an owner holds a name that the image's own files must tell."""
    return any(part and not part.isdigit() and part != "root" for part in owner.split(":"))


def _now_ns(environment: Environment) -> int:
    return int(now(environment.epoch) * 1_000_000_000)
