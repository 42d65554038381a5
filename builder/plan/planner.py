"""From a parsed Dockerfile to a graph of steps. Pure: what has to be looked up is asked for and given by the caller.

`plan` is called with the images resolved so far; it answers with a `Plan`, or with the images that it still needs
(a base may bring ONBUILD triggers that name further ones).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from builder.dockerfile.instructions import Add, Copy, Dockerfile, From, OnBuild, Range, Run, StageInstruction, Workdir
from builder.dockerfile.stage_graph import StageGraph
from builder.dockerfile.text import nearest
from builder.dockerfile.words import Expansion, Word, expand
from builder.errors import BuilderError, PlanError
from builder.oci import reference
from builder.oci.platform import parse_platform
from builder.oci.spec import ImageConfig, Platform
from builder.plan.checks import (
    check_base_platform,
    check_default_arguments,
    check_from_arguments,
    check_notices,
    check_platform_flag,
)
from builder.plan.dispatch import dispatch
from builder.plan.findings import Checks, ordered
from builder.plan.image import ImageState, empty_image
from builder.plan.locate import Locator
from builder.plan.nodes import Nodes
from builder.plan.options import PlanOptions
from builder.plan.scope import Scope, global_scope, platform_arguments, proxies
from builder.plan.stage_graph import stage_graph
from builder.plan.stages import (
    SCRATCH,
    StageEntry,
    StageTable,
    check_cycles,
    context_name,
    did_you_mean,
    link,
    reachable,
)
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
    ResolvedImage,
    ScratchNode,
    Tree,
    TreeNode,
    UnneededStep,
)


def plan(
    dockerfile: Dockerfile,
    options: PlanOptions,
    images: Mapping[ImageKey, ResolvedImage],
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
        attempt = Planner(dockerfile, options, images, locate, platform, nodes, used, checks)
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
    platform = options.platforms[0] if options.platforms else None
    planner = Planner(dockerfile, options, {}, locate, platform, Nodes(), set(), Checks())
    planner.read()
    return planner.stage_graph()


class Planner:
    """The work for one platform. `platform` is None when the user named none."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        options: PlanOptions,
        images: Mapping[ImageKey, ResolvedImage],
        locate: Locator,
        platform: Platform | None,
        nodes: Nodes,
        used: set[str],
        checks: Checks,
    ) -> None:
        self.dockerfile = dockerfile
        self.options = options
        self.images = images
        self.locate = locate
        self.implicit_platform = platform is None
        self.platform = platform or options.host
        self.nodes = nodes
        self.used = used
        self.checks = checks
        self.table = StageTable()
        self.states: dict[StageEntry, StageState] = {}
        self.global_args: dict[str, str] = {}
        self.unneeded: list[UnneededStep] = []

    def run(self) -> PlannedImage | Missing:
        check_notices(self.checks, self.dockerfile)
        target = self.read()
        needed = self._add_triggers(target)
        if isinstance(needed, Missing):
            return needed
        wanted = self.table.entries if self.options.all_stages else needed
        for entry in self.table.entries:
            if entry in wanted and not entry.implicit:  # those are begun when an instruction names them
                self._dispatch(entry)
            elif entry not in wanted:
                self.unneeded += [
                    UnneededStep(entry.label, label_of(instruction), instruction.range)
                    for instruction, _ in entry.instructions
                    if isinstance(instruction, (Run, Copy, Add, Workdir))
                ]
        return self._finish(self.states[target])

    def read(self) -> StageEntry:
        """Read the stages and what each names; returns the target."""
        self._read_globals()
        self._read_stages()
        target = self.table.target(self.options.target)
        for entry in list(self.table.entries):
            if entry.context is None:
                link(entry, [instruction for instruction, _ in entry.instructions], self.table, self.locate)
        check_cycles(self.table, self.locate)
        return target

    def stage_graph(self) -> StageGraph:
        """What was read of the stages, as a graph."""
        target = self.table.target(self.options.target)
        return stage_graph(self.table, target, reachable(target), self._base)

    def _read_globals(self) -> None:
        last = self.dockerfile.stages[-1].from_.name
        predefined = platform_arguments(self.options.host, self.platform, self.options.target or last)
        overridden = {name: self.options.build_args.get(name, value) for name, value in predefined.items()}
        check_default_arguments(self.checks, self.dockerfile, overridden)
        self.global_args = global_scope(self.dockerfile.global_args, predefined, self.options.build_args, self.used)

    def _read_stages(self) -> None:
        for index, stage in enumerate(self.dockerfile.stages):
            with self.locate(stage.from_):
                image = self._expand_from(stage.from_, stage.from_.image)
                base_name = image.text
                if not base_name:
                    raise PlanError(
                        f"the base name {stage.from_.image.source!r} is empty once it is expanded",
                        remedy="give the ARG a default before the first FROM, or pass --build-arg",
                    )
                platform = None
                if stage.from_.platform is not None:
                    platform = self._platform_flag(stage.from_, stage.from_.platform)
                entry = StageEntry(stage, stage.from_.name, base_name, platform, index)
                replacement = self._context_for(entry.name) if entry.name else None
                entry.context = replacement
                self.table.add(entry, replaced=replacement is not None)
                if entry.base is None and base_name != SCRATCH:
                    reference.parse(base_name)
        for entry in self.table.entries:
            self._stand_on_context_stage(entry)

    def _expand_from(self, from_: From, word: Word) -> Expansion:
        expansion = expand(word, self.global_args)
        declared = [pair.key.source for argument in self.dockerfile.global_args for pair in argument.pairs]
        check_from_arguments(self.checks, from_, expansion.unmatched, self.global_args, declared)
        return expansion

    def _platform_flag(self, from_: From, word: Word) -> Platform:
        platform = self._expand_from(from_, word)
        check_platform_flag(self.checks, from_, platform, self.global_args["TARGETPLATFORM"])
        hints = [nearest(name, self.global_args) for name in platform.unmatched]
        remedy = f"did you mean {next(filter(None, hints))}?" if any(hints) else None
        if not platform.text:
            raise PlanError(f"the platform {word.source!r} is empty once it is expanded", remedy=remedy)
        try:
            return parse_platform(platform.text)
        except BuilderError as error:
            error.remedy = remedy or error.remedy
            raise

    def _stand_on_context_stage(self, entry: StageEntry) -> None:
        """Where a named context means another stage of this Dockerfile, that stage becomes the base."""
        if entry.base is not None or not self.options.contexts:
            return
        name = entry.context or (self._context_for(entry.base_name) if entry.base_name != SCRATCH else None)
        stage = self.options.contexts[name].stage if name else ""
        if stage:
            entry.base = self.table.named(stage)
            if entry.base is None:
                raise PlanError(
                    f"context {name!r} names the stage {stage!r}, which does not exist",
                    remedy=did_you_mean(stage, self.table.names()),
                )

    def _context_for(self, name: str) -> str | None:
        """The named context that replaces the stage or image `name`, if there is one."""
        if not self.options.contexts:
            return None
        key = context_name(name) if name == name.lower() else name
        return key if key in self.options.contexts else None

    # --- bases and ONBUILD

    def _add_triggers(self, target: StageEntry) -> set[StageEntry] | Missing:
        """The stages that the target needs, once the triggers of all their bases were added."""
        while True:
            needed = reachable(target)
            wanted = self.table.entries if self.options.all_stages else needed
            missing = {key: entry for entry in wanted for key in self._wanted(entry) if key not in self.images}
            if missing:
                return Missing(frozenset(missing), {key: self._place(entry) for key, entry in missing.items()})
            fresh = False
            for entry in [entry for entry in self.table.entries if entry in needed]:
                fresh |= self._add_own_triggers(entry)
            if not fresh:
                return needed

    def _place(self, entry: StageEntry) -> Range | None:
        """The lines that name what a stage starts from."""
        if entry.stage is not None:
            return entry.stage.from_.range
        return next((other.named_by[entry].range for other in self.table.entries if entry in other.named_by), None)

    def _add_own_triggers(self, entry: StageEntry) -> bool:
        if entry.triggers_added:
            return False
        entry.triggers_added = True
        triggers: list[str] = []
        if entry.base is not None:
            triggers += [i.trigger for i, _ in entry.base.instructions if isinstance(i, OnBuild)]
        elif not entry.implicit:
            for key in self._wanted(entry):
                triggers += self.images[key].config.config.on_build or []
        if not triggers or entry.stage is None:
            return False
        with self.locate(entry.stage.from_):
            parsed = [self._trigger(text, entry) for text in triggers]
        entry.instructions[:0] = [(instruction, True) for instruction in parsed]
        before = len(entry.needs)
        link(entry, parsed, self.table, self.locate)
        return len(entry.needs) > before

    def _trigger(self, text: str, entry: StageEntry) -> StageInstruction:
        assert entry.stage is not None
        from builder.dockerfile.parser import parse_trigger  # loads the grammar

        instruction = parse_trigger(text, self.dockerfile.escape)
        return msgspec.structs.replace(instruction, range=entry.stage.from_.range)

    def _wanted(self, entry: StageEntry) -> Iterator[ImageKey]:
        """The image that a stage starts from, if it does."""
        base = self._base(entry)
        if isinstance(base, ImageKey):
            yield base

    def _base(self, entry: StageEntry) -> ImageKey | StageEntry | FromContext | None:
        """What a stage starts from: an image, another stage, a context's files, or nothing (None)."""
        if entry.base is not None:
            return entry.base
        platform = entry.platform or self.platform
        name = entry.context
        if name is None:
            if entry.base_name == SCRATCH:
                return None
            with self.locate.at(self._place(entry)):
                name = self._context_for(entry.base_name)
                if name is None:
                    return ImageKey(str(reference.parse(entry.base_name)), platform)
        context = self.options.contexts[name]
        if context.reference == SCRATCH and not context.layout:
            return None
        if context.reference or context.layout:
            return ImageKey(context.reference, platform, context.layout)
        return FromContext(name)

    # --- stages to nodes

    def _dispatch(self, entry: StageEntry) -> None:
        state = self._begin(entry)
        self.states[entry] = state
        state.image.moments[state.node] = state.image.image
        if entry.context is not None or entry.implicit:
            return
        for instruction, _ in entry.instructions:
            with self.locate(instruction):
                dispatch(state, instruction)
            state.image.moments[state.node] = state.image.image

    def _begin(self, entry: StageEntry) -> StageState:
        base = self._base(entry)
        if isinstance(base, StageEntry):
            parent = self.states[base]
            state = StageState(
                entry, parent.image.child(), parent.scope.child(), parent.node, parent.platform, self.options
            )
            state.workdir_set = parent.workdir_set
        else:
            state = self._begin_anew(entry, base)
        state.global_args = self.global_args
        state.proxies = proxies(self.options.build_args)
        state.used_args = self.used
        state.checks = self.checks
        self.used.update(name for name, _ in state.proxies if name in self.options.build_args)
        state.add_node = self.nodes.add
        state.tree_of = self._tree_of
        state.has_stage = lambda name: self.table.named(name) is not None
        state.image.ensure_path()
        for name, value in state.image.environment().items():
            state.scope.env[name] = value
        if state.image.config.working_dir:
            state.image.set_workdir(state.image.config.working_dir)
        return state

    def _begin_anew(self, entry: StageEntry, base: ImageKey | FromContext | None) -> StageState:
        platform = entry.platform or self.platform
        label = entry.base_name
        place = entry.stage.from_.range if entry.stage is not None else None
        image = empty_image(platform)
        node: AnyNode
        if base is None:
            platform = self.platform
            image = empty_image(platform)
            node = ScratchNode(label="FROM scratch", stage=entry.label, platform=platform, range=place)
        elif isinstance(base, FromContext):
            node = TreeNode(label=f"FROM {label}", stage=entry.label, platform=platform, range=place, context=base.name)
        else:
            image = self._inherited(self.images[base].config)
            found = image.platform()
            if (
                entry.platform is None
                and self.implicit_platform
                and (found.os, found.architecture)
                == (
                    self.options.host.os,
                    self.options.host.architecture,
                )
            ):
                platform = self.options.host
            self._check_platform(entry, base, platform, found)
            node = ImageNode(label=f"FROM {label}", stage=entry.label, platform=platform, range=place, image=base)
        state = StageState(entry, ImageState(image), Scope(), self.nodes.add(node), platform, self.options)
        if isinstance(node, TreeNode):
            state.image.record(f"FROM {label}", state.node)
        return state

    def _check_platform(self, entry: StageEntry, base: ImageKey, expected: Platform, found: Platform) -> None:
        """Look at an image from a registry; one that a named context gives was chosen as it is."""
        if entry.context is None and not base.layout and self._context_for(entry.base_name) is None:
            check_base_platform(self.checks, entry.base_name, expected, found, self._place(entry))

    def _inherited(self, config: ImageConfig) -> ImageConfig:
        """A base's configuration without what is not handed down: its triggers and its time."""
        inner = msgspec.structs.replace(config.config, on_build=None)
        return msgspec.structs.replace(config, config=inner, created=None)

    def _tree_of(self, name: str, numbers: bool) -> Tree:
        entry = self.table.source(name, numbers=numbers)
        base = self._base(entry)
        if isinstance(base, FromContext):
            return base
        if entry not in self.states and entry.implicit:
            self._dispatch(entry)
        if entry not in self.states:
            raise PlanError(
                f"stage {name!r} is defined later in the Dockerfile",
                remedy="move it above the instruction that copies from it",
            )
        return FromNode(self.states[entry].node)

    def _finish(self, state: StageState) -> PlannedImage:
        if self.options.labels:
            state.image.add_labels(dict(self.options.labels))
        found = state.image.image.platform()
        if not self.implicit_platform:
            same = (found.os, found.architecture) == (self.platform.os, self.platform.architecture)
            state.image.set_platform(self.platform, same_variant=same)
        else:
            state.image.set_platform(found, same_variant=False)
        base = self._image_below(state.entry)
        return PlannedImage(
            platform=state.image.image.platform(),
            node=state.node,
            config=state.image.image,
            history=tuple(state.image.history),
            base=base,
            moments=tuple(state.image.moments.items()),
        )

    def _image_below(self, entry: StageEntry) -> ImageKey | None:
        base = self._base(entry)
        while isinstance(base, StageEntry):
            base = self._base(base)
        return base if isinstance(base, ImageKey) else None
