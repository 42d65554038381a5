"""A command by the content of what its mounts show of stages and images, where their layers are others than before.

As in BuildKit (`getMountDeps` of `solver/llbsolver/ops/exec.go`), which compares what is mounted file by file, without
times: no mount of a Dockerfile can be written for good. As with COPY --from a result of other times is good at the
same place of the same Dockerfile only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from builder.errors import StepFailed
from builder.oci.digests import hex_of
from builder.plan.steps import BindMount, CacheMount, CopyFiles, FromNode, RunNode
from builder.solver.cache import Made
from builder.solver.environment import Environment
from builder.solver.gather import FilesSource
from builder.solver.keys import Recipe, content_name, encode, key_of_encoded, placed_recipe
from builder.solver.roots import Layers, root_tree
from builder.solver.trace import Trace
from builder.store.records import RecipeRecord

Recipes = Callable[[Mapping[str, str]], Iterator[Recipe]]


def mounted_stages(node: RunNode) -> Iterator[tuple[FromNode, str]]:
    """What a command's mounts show of stages and images: which, and the path in it."""
    for mount in node.mounts:
        if isinstance(mount, (BindMount, CacheMount)) and isinstance(mount.tree, FromNode):
            yield mount.tree, mount.source


class MountedContent:
    """A command that was not found by the layers of what it mounts, which `trace` has the key of. `recipes` are what it
    is looked up by, with keys for what its mounts show."""

    def __init__(
        self, environment: Environment, node: RunNode, roots: Mapping[int, Layers], trace: Trace, recipes: Recipes
    ) -> None:
        self._environment = environment
        self._node = node
        self._roots = roots
        self._trace = trace
        self._recipes = recipes
        self._encoded = b""

    def known(self) -> Made | None:
        """The result, if these layers were found to show the same before."""
        return self._environment.cache.look_up(placed_recipe(self._trace.key, self._trace.place))

    def find(self) -> Made | None:
        """The result of a command that saw the same at this place. What is mounted is read for it."""
        environment, found = self._environment, None
        try:
            stages = mounted_stages(self._node)
            shown = {content_name(tree, source): self._digest(tree, source) for tree, source in stages}
        except StepFailed:
            return None  # what is missing there is told by whoever mounts it
        parts = {**self._trace.parts, **shown}
        for recipe in self._recipes(parts):
            self._encoded = encode(recipe)
            if not self._node.ignore_cache:
                found = environment.cache.find(key_of_encoded(self._encoded), lineage=self._trace.place)
            if found is not None:
                break
        return found

    def note(self, made: Made, recipe: bytes) -> None:
        """Keep for these layers, whose recipe is `recipe`, what `find` has found."""
        environment, trace = self._environment, self._trace
        environment.store.database.add_recipe(RecipeRecord(trace.key, recipe, ""))
        environment.cache.remember(placed_recipe(trace.key, trace.place), made, trace.place)

    def remember(self, made: Made) -> None:
        """Keep by its content what was made after `find` had found nothing."""
        if self._encoded:
            key = key_of_encoded(self._encoded)
            self._environment.cache.remember_encoded(key, self._encoded, made, self._trace.place)

    def _digest(self, tree: FromNode, path: str) -> str:
        layers = self._roots[tree.node]
        source = CopyFiles(tree=tree, path=path, literal=True)
        files = FilesSource(source, lambda: root_tree(self._environment, layers), (), layers=layers)
        tops = [[match.info.mode, match.info.uid, match.info.gid] for match in files.matches]
        return hex_of(encode([files.content(), tops]))
