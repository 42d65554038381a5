"""From a parsed Dockerfile to a graph of steps. Pure: what has to be looked up is asked for and given by the caller.

`plan` is called with the images resolved so far; it answers with a `Plan`, or with the images that it still needs
(a base may bring ONBUILD triggers that name further ones).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from builder.dockerfile.instructions import Add, Copy, Dockerfile, OnBuild, Range, Run, Workdir
from builder.dockerfile.stage_graph import StageGraph
from builder.errors import PlanError
from builder.oci.spec import ImageConfig, Platform
from builder.plan.checks import check_base_platform, check_notices
from builder.plan.dispatch import dispatch
from builder.plan.findings import Checks, ordered
from builder.plan.image import ImageState, empty_image
from builder.plan.locate import Locator
from builder.plan.nodes import Nodes
from builder.plan.options import PlanOptions
from builder.plan.scope import Scope, is_proxy, proxies
from builder.plan.stage_reader import StageReader
from builder.plan.stages import StageEntry, reachable
from builder.plan.state import StageState, label_of
from builder.plan.steps import (
    AnyNode,
    FromContext,
    FromNode,
    ImageKey,
    ImageNode,
    Missing,
    Plan,
    PlannedImage,
    ScratchNode,
    Tree,
    TreeNode,
    UnneededStep,
)


def plan(
    dockerfile: Dockerfile,
    options: PlanOptions,
    images: Mapping[ImageKey, ImageConfig],
    locate: Locator,
    checks: Checks | None = None,
) -> Plan | Missing:
    """Plan the target for each platform. Raises PlanError or DockerfileError with the place.

    What build checks find is noted in `checks` (for the first platform), also when an error is raised.
    """
    first = checks = checks or Checks()
    unneeded: tuple[UnneededStep, ...] = ()
    stages = StageGraph()
    checks.clear()
    nodes = Nodes()
    made: list[PlannedImage] = []
    used: set[str] = set()
    missing: dict[ImageKey, Range | None] = {}
    for platform in options.platforms or (None,):
        reader = StageReader(dockerfile, options, locate, platform or options.host, used, checks)
        attempt = Planner(reader, images, nodes, implicit_platform=platform is None)
        checks = Checks()
        result = attempt.run()
        if isinstance(result, Missing):
            missing |= result.places
        else:
            made.append(result)
            unneeded = unneeded or tuple(attempt.unneeded)
            if not stages.nodes:
                stages = attempt.stage_graph()
    if missing:
        return Missing(frozenset(missing), missing)
    findings = tuple(ordered(first.findings))
    return Plan(nodes.labelled(), tuple(made), findings, frozenset(used), unneeded, stages)


def plan_stages(dockerfile: Dockerfile, options: PlanOptions, locate: Locator) -> StageGraph:
    """The graph of a Dockerfile's stages, without looking anything up: what the ONBUILD triggers of images add is not
    in it. Raises PlanError or DockerfileError with the place."""
    platform = options.platforms[0] if options.platforms else options.host
    reader = StageReader(dockerfile, options, locate, platform, set(), Checks())
    return reader.graph(reader.read())


class Planner:
    """The work for one platform, that of the `reader`. `implicit_platform`: the user named none."""

    def __init__(
        self,
        reader: StageReader,
        images: Mapping[ImageKey, ImageConfig],
        nodes: Nodes,
        *,
        implicit_platform: bool,
    ) -> None:
        self.reader = reader
        self.options = reader.options
        self.images = images
        self.nodes = nodes
        self.implicit_platform = implicit_platform
        self.states: dict[StageEntry, StageState] = {}
        self.unneeded: list[UnneededStep] = []

    def run(self) -> PlannedImage | Missing:
        check_notices(self.reader.checks, self.reader.dockerfile)
        target = self.reader.read()
        needed = self._with_triggers(target)
        if isinstance(needed, Missing):
            return needed
        wanted = self.reader.table.entries if self.options.all_stages else needed
        for entry in self.reader.table.entries:
            if entry in wanted and not entry.implicit:  # those are begun when an instruction names them
                self._dispatch(entry)
            elif entry not in wanted:
                self.unneeded += [
                    UnneededStep(entry.label, label_of(instruction), instruction.range)
                    for instruction, _ in entry.instructions
                    if isinstance(instruction, (Run, Copy, Add, Workdir))
                ]
        return self._finish(self.states[target])

    def stage_graph(self) -> StageGraph:
        """What was read of the stages, as a graph."""
        return self.reader.graph(self.reader.table.target(self.options.target))

    def _with_triggers(self, target: StageEntry) -> set[StageEntry] | Missing:
        """The stages that the target needs, once the triggers of all their bases were added."""
        entries = self.reader.table.entries
        while True:
            needed = reachable(target)
            wanted = entries if self.options.all_stages else needed
            missing = {key: entry for entry in wanted for key in self._images_of(entry) if key not in self.images}
            if missing:
                return Missing(frozenset(missing), {key: self.reader.place(entry) for key, entry in missing.items()})
            fresh = False
            for entry in [entry for entry in entries if entry in needed]:
                fresh |= self._add_triggers(entry)
            if not fresh:
                return needed

    def _add_triggers(self, entry: StageEntry) -> bool:
        """Add those of the stage's base, once. Returns whether it needs further stages with them."""
        if entry.triggers_added:
            return False
        entry.triggers_added = True
        triggers: list[str] = []
        if entry.base is not None:
            triggers += [i.trigger for i, _ in entry.base.instructions if isinstance(i, OnBuild)]
        elif not entry.implicit:
            for key in self._images_of(entry):
                triggers += self.images[key].config.on_build or []
        if not triggers or entry.stage is None:
            return False
        from builder.plan.triggers import put_in_front  # few bases have some

        return put_in_front(triggers, entry, self.reader)

    def _images_of(self, entry: StageEntry) -> Iterator[ImageKey]:
        """The image that a stage starts from, if it does."""
        base = self.reader.base(entry)
        if isinstance(base, ImageKey):
            yield base

    def _dispatch(self, entry: StageEntry) -> None:
        """Plan the instructions of a stage, once; before them those of its base, which a named context may have put
        below it from further down."""
        if entry in self.states:
            return
        if entry.base is not None:
            self._dispatch(entry.base)
        state = self._begin(entry)
        self.states[entry] = state
        state.image.moments[state.node] = state.image.image
        if entry.context is not None or entry.implicit:
            return
        for instruction, _ in entry.instructions:
            with self.reader.locate(instruction):
                dispatch(state, instruction)
            state.image.moments[state.node] = state.image.image

    def _begin(self, entry: StageEntry) -> StageState:
        base = self.reader.base(entry)
        if isinstance(base, StageEntry):
            parent = self.states[base]
            state = StageState(
                entry, parent.image.child(), parent.scope.child(), parent.node, parent.platform, self.options
            )
            state.workdir_set = parent.workdir_set
        else:
            state = self._begin_anew(entry, base)
        state.global_args = self.reader.global_args
        state.proxies = proxies(self.options.build_args)
        state.used_args = self.reader.used
        state.checks = self.reader.checks
        self.reader.used.update(filter(is_proxy, self.options.build_args))
        state.add_node = self.nodes.add
        state.tree_of = self._tree_of
        state.has_stage = lambda name: self.reader.table.named(name) is not None
        state.image.ensure_path()
        for name, value in state.image.environment().items():
            state.scope.env[name] = value
        if state.image.config.working_dir:
            state.image.set_workdir(state.image.config.working_dir)
        return state

    def _begin_anew(self, entry: StageEntry, base: ImageKey | FromContext | None) -> StageState:
        platform = entry.platform or self.reader.platform
        label = entry.context or entry.base_name
        place = entry.stage.from_.range if entry.stage is not None else None
        image = empty_image(platform)
        node: AnyNode
        if base is None:
            platform = self.reader.platform
            image = empty_image(platform)
            node = ScratchNode(label="FROM scratch", stage=entry.label, platform=platform, range=place)
        elif isinstance(base, FromContext):
            node = TreeNode(label=f"FROM {label}", stage=entry.label, platform=platform, range=place, context=base.name)
            if entry.context is not None:  # in a stage's place, where BuildKit has no configuration at all
                image = msgspec.structs.replace(image, config=msgspec.structs.replace(image.config, working_dir=""))
        else:
            image = self._inherited(self.images[base])
            found = image.platform()
            host = self.options.host
            as_host = (found.os, found.architecture) == (host.os, host.architecture)
            if as_host and entry.platform is None and self.implicit_platform:
                platform = host
            self._check_platform(entry, base, platform, found)
            node = ImageNode(label=f"FROM {label}", stage=entry.label, platform=platform, range=place, image=base)
        state = StageState(entry, ImageState(image), Scope(), self.nodes.add(node), platform, self.options)
        if isinstance(node, TreeNode):
            state.image.record(f"FROM {label}", state.node)
        return state

    def _check_platform(self, entry: StageEntry, base: ImageKey, expected: Platform, found: Platform) -> None:
        """Look at an image from a registry; one that a named context gives was chosen as it is."""
        if entry.context is None and not base.layout and self.reader.context_for(entry.base_name) is None:
            check_base_platform(self.reader.checks, entry.base_name, expected, found, self.reader.place(entry))

    def _inherited(self, config: ImageConfig) -> ImageConfig:
        """A base's configuration without what is not handed down: its triggers and its time."""
        inner = msgspec.structs.replace(config.config, on_build=None)
        return msgspec.structs.replace(config, config=inner, created=None)

    def _tree_of(self, name: str, numbers: bool) -> Tree:
        entry = self.reader.table.source(name, numbers=numbers)
        if entry.implicit or entry.context is not None:
            base = self.reader.base(entry)
            if isinstance(base, FromContext):
                return base
        if entry.implicit:
            self._dispatch(entry)
        if entry not in self.states:
            raise PlanError(
                f"stage {entry.name or name!r} is defined later in the Dockerfile",
                remedy="move it above the instruction that copies from it",
            )
        return FromNode(self.states[entry].node)

    def _finish(self, state: StageState) -> PlannedImage:
        if self.options.labels:
            state.image.add_labels(dict(self.options.labels))
        found = state.image.image.platform()
        if not self.implicit_platform:
            same = (found.os, found.architecture) == (self.reader.platform.os, self.reader.platform.architecture)
            state.image.set_platform(self.reader.platform, same_variant=same)
        else:
            state.image.set_platform(found, same_variant=False)
        base = self.reader.image_below(state.entry)
        return PlannedImage(
            platform=state.image.image.platform(),
            node=state.node,
            config=state.image.image,
            history=tuple(state.image.history),
            base=base,
            moments=tuple(state.image.moments.items()),
        )
