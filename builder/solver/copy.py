"""COPY, ADD and WORKDIR, and contexts as root file systems: found in the cache, or left to `make`.

A step is looked up twice. First, here, by its sources' identity and its parent's layers, which needs no look at the
parent; then, in `make`, by its sources' content and the facts it asked of its parent, so that a new base image with
the same directories does not redo the copy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

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
from builder.solver.gather import FilesSource, InlineSource, Source
from builder.solver.keys import Recipe, copy_recipe, workdir_recipe
from builder.solver.roots import EmptyTree, Layers, root_tree

_ANY = Platform("linux", "")

MOUNTED = "mounted"
"""The name, in the layer made for it, of what a context's mount shows."""


def copy(environment: Environment, node: CopyNode, parent: Layers, roots: dict[int, Layers], lineage: str) -> Made:
    """Run a COPY or ADD, or find it in the cache. `roots` are the layers of the nodes that it copies from."""
    with ExitStack() as held:
        sources = [_source(environment, node, source, roots, held) for source in node.sources]
        flags = _flags(environment, node)
        seen = {"parent": [] if node.link and not node.owner_is_named else list(parent)}

        def recognised() -> Recipe | None:
            """The recipe by identities, once every source has one."""
            identities = [source.identity() for source in sources]
            return copy_recipe(identities, flags, seen) if None not in identities else None

        quick = recognised()
        found = environment.cache.look_up(quick) if quick is not None and not node.ignore_cache else None
        if found is not None:
            return found
        from builder.solver.make import make_copy

        return make_copy(environment, node, parent, sources, flags, recognised, lineage)


def workdir(environment: Environment, node: WorkdirNode, parent: Layers, lineage: str) -> Made:
    """Make a working directory with its parents, or an empty layer if it is there."""
    settings: Recipe = {"epoch": environment.epoch}
    quick = workdir_recipe(node, {"parent": list(parent)}, settings)
    found = None if node.ignore_cache else environment.cache.look_up(quick)
    if found is not None:
        return found
    from builder.solver.make import make_workdir

    return make_workdir(environment, node, parent, settings, quick, lineage)


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
    environment: Environment, node: CopyNode, source: CopySource, roots: dict[int, Layers], held: ExitStack
) -> Source:
    if isinstance(source, CopyInline):
        return InlineSource(source)
    if isinstance(source, CopyFiles):
        return _files(environment, source, node.excludes, roots)
    from builder.solver import remote

    scratch = held.enter_context(environment.store.scratch())
    if isinstance(source, CopyUrl):
        return remote.url_source(environment, source, scratch)
    assert isinstance(source, CopyGit)
    return remote.git_source(source, node.excludes, scratch)


def _files(
    environment: Environment, source: CopyFiles, excludes: tuple[str, ...], roots: dict[int, Layers]
) -> FilesSource:
    if isinstance(source.tree, FromNode):
        layers = roots[source.tree.node]
        return FilesSource(source, lambda: root_tree(environment, layers), excludes, layers=layers)
    if isinstance(source.tree, FromContext):
        name = source.tree.name
        return FilesSource(
            source, lambda: environment.contexts.tree(name), excludes, fingerprints=partial(_fingerprints, environment)
        )
    return FilesSource(source, EmptyTree, excludes, layers=())


def _fingerprints(environment: Environment, root: str, selection: Sequence[str]) -> Fingerprints | None:
    """What is known of a context's files. One that was fetched lies in a new directory each time: nothing is known."""
    store = environment.store
    if os.path.commonpath((os.path.abspath(root), store.root)) == store.root:
        return None
    return Fingerprints(store.database, root, selection)
