"""COPY, ADD and WORKDIR, and contexts as root file systems: found in the cache, or left to `make_*`.

A step is looked up twice. First, here, by its sources' identity and its parent's layers, which needs no look at the
parent; then, in these, by its sources' content and the facts it asked of its parent, so that a new base image with
the same directories does not redo the copy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from builder.context.local import LocalTree
from builder.oci.spec import Platform
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
from builder.solver.cache import Made
from builder.solver.environment import Environment
from builder.solver.fingerprints import Fingerprints
from builder.solver.gather import FilesSource, Overrides, Source
from builder.solver.keys import Recipe, copy_by_identity, hide, key_of, placed_recipe, workdir_by_parent
from builder.solver.roots import EmptyTree, Layers, root_tree
from builder.solver.trace import Trace

_ANY = Platform("linux", "")

MOUNTED = "mounted"
"""The name, in the layer made for it, of what a context's mount shows."""


def copy(
    environment: Environment,
    node: CopyNode,
    parent: Layers,
    roots: dict[int, Layers],
    trace: Trace,
    *,
    followed: bool = True,
    mounted: bool = False,
) -> Made:
    """Run a COPY or ADD, or find it in the cache. `roots` are the layers of the nodes that it copies from. With
    `followed` a step of this kind stands on it, which looks at it (see `outline`), with `mounted` a command will have
    it mounted."""
    environment.spent = ()
    with ExitStack() as held:
        sources = [open_source(environment, node, source, roots, held) for source in node.sources]
        environment.spent = sources

        def recognised() -> Recipe | None:
            """The recipe by identities, once every source has one."""
            identities = [source.identity() for source in sources]
            return copy_by_identity(node, identities, parent, environment.epoch) if None not in identities else None

        quick = recognised()
        if quick is None and environment.cache.external is not None and not node.ignore_cache:
            for source in sources:  # another machine knows files by their content, and nothing of the parent is needed
                source.content()
            quick = recognised()
        found = None
        if quick is not None:
            trace.key = key_of(quick)
            found = find_copy(environment, trace) if not node.ignore_cache else None
        if found is not None:
            return found
        from builder.solver.make_copy import CopyMaker

        maker = CopyMaker(environment, node, sources, trace, recognised, followed=followed, mounted=mounted)
        return maker.make(parent)


def find_copy(environment: Environment, trace: Trace) -> Made | None:
    """A copy's result by its sources' identity: made of just these sources, or at this place of ones that are the same
    but for their times."""
    found = environment.cache.find(trace.key)
    return found or environment.cache.look_up(placed_recipe(trace.key, trace.place))


def workdir(
    environment: Environment, node: WorkdirNode, parent: Layers, trace: Trace, *, followed: bool = True
) -> Made:
    """Make a working directory with its parents, or an empty layer if it is there. `followed` as for `copy`."""
    quick = workdir_by_parent(node, parent, environment.epoch)
    trace.key = key_of(quick)
    found = None if node.ignore_cache else environment.cache.find(trace.key)
    if found is not None:
        return found
    from builder.solver.make_workdir import make_workdir

    return make_workdir(environment, node, parent, quick, trace, followed=followed)


def context_layer(environment: Environment, context: str, path: str, destination: str, trace: Trace) -> Made:
    """A layer with what a context holds at `path`, put at `destination`: for FROM and for mounts of a context."""
    return copy(environment, context_node(context, path, destination), (), {}, trace, followed=False)


def context_node(context: str, path: str, destination: str) -> CopyNode:
    """The copy that `context_layer` does. The path is no pattern, as in BuildKit (`llb.SourcePath`)."""
    return CopyNode(
        label=f"load {context or 'context'}",
        stage="",
        platform=_ANY,
        parent=0,
        sources=(CopyFiles(tree=FromContext(context), path=path, literal=True),),
        destination=destination,
        link=True,
    )


def tree_root(environment: Environment, node: TreeNode, trace: Trace) -> Made:
    """The layer of a directory that FROM names."""
    return context_layer(environment, node.context, "/", "/", trace)


def open_source(
    environment: Environment, node: CopyNode, source: CopySource, roots: dict[int, Layers], held: ExitStack
) -> Source:
    """One source of a copy, for as long as `held` is open. What is at a URL or in a repository is fetched now."""
    if isinstance(source, CopyInline):
        from builder.solver.inline import InlineSource

        return InlineSource(source)
    if isinstance(source, CopyFiles):
        return _files(environment, node, source, roots)
    from builder.solver import remote

    scratch = held.enter_context(environment.store.scratch())
    if isinstance(source, CopyUrl):
        fetched = remote.url_source(environment, source, scratch)
    else:
        assert isinstance(source, CopyGit)
        fetched = remote.git_source(environment, source, node.excludes, scratch)
    fetched.known_as = hide(fetched.known_as, node)
    return fetched


def _files(environment: Environment, node: CopyNode, source: CopyFiles, roots: dict[int, Layers]) -> FilesSource:
    excludes, overrides = node.excludes, overrides_of(node)
    if isinstance(source.tree, FromNode):
        layers = roots[source.tree.node]
        return FilesSource(source, lambda: root_tree(environment, layers), excludes, layers=layers, overrides=overrides)
    if isinstance(source.tree, FromContext):
        name = source.tree.name
        return FilesSource(
            source,
            lambda: environment.contexts.tree(name),
            excludes,
            fingerprints=partial(_fingerprints, environment),
            overrides=overrides,
        )
    return FilesSource(source, EmptyTree, excludes, layers=(), overrides=overrides)


def overrides_of(node: CopyNode) -> Overrides:
    """What the flags of a copy replace in the files that it takes."""
    return Overrides(owner=node.chown is not None, mode=isinstance(node.chmod, int))


def _fingerprints(environment: Environment, tree: LocalTree, selection: Sequence[str]) -> Fingerprints | None:
    """What is known of a context's files. One that was fetched lies in a new directory each time: nothing is known."""
    store = environment.store
    if os.path.commonpath((os.path.abspath(tree.root), store.root)) == store.root:
        return None
    return Fingerprints(store.database, tree.root, selection, tree.since)
