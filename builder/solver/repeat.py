"""Steps done again where they failed, with the contexts as they are now. What they make is not kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from builder.filesystem.compression import UNCOMPRESSED, Compression
from builder.filesystem.diff import changes, write_changes
from builder.filesystem.layered import LayeredTree
from builder.plan.steps import CopyNode, RunNode, WorkdirNode
from builder.progress import Warned
from builder.sandbox.command import Result
from builder.solver.assemble import write_layer
from builder.solver.copy import MOUNTED, context_layer, open_source
from builder.solver.environment import Environment
from builder.solver.execute import check_result, run_command
from builder.solver.failed import StepState
from builder.solver.interactive import ChangedFile, command_there, written_file
from builder.solver.make_copy import stage_copy
from builder.solver.make_workdir import stage_workdir
from builder.solver.required import check_required
from builder.solver.roots import root_tree
from builder.solver.run import context_parts
from builder.solver.trace import Trace


def needs_contexts(state: StepState) -> bool:
    """Whether a RUN failed before it was known what its mounts show of contexts."""
    node = state.node
    return isinstance(node, RunNode) and any(name not in state.contents for name, _, _ in context_parts(node))


def repeat_command(
    environment: Environment, state: StepState, upper: str, show: Callable[[int, bytes], None]
) -> Result:
    """Run a RUN's command over what it wrote before (`upper`, '' for nothing), and `show` what it prints to a stream,
    masked. Raises what the step raises but for a command that ends badly: that is in the result."""
    node = state.node
    assert isinstance(node, RunNode)
    with command_there(environment, _ready(environment, state), upper) as command:
        result, tail, masking = run_command(environment, command, show, environment.store.catch_up)
        if result.exit_status != 0 or result.error:
            if masking is not None and masking.printed:
                forms = " and ".join(dict.fromkeys(map(str, masking.printed.values())))
                environment.report(Warned(f"the command printed the value of {forms}, which is masked"))
            return result
        check_result(node, result, tail)
        if masking is not None:
            masking.check(node.label, tail, environment.report)
        if environment.guard is not None:
            with LayeredTree(command.lowers) as below:
                found = changes(command.upper, below if command.lowers else None)
                write_changes(found, environment.guard.writer(lambda data: None))
        return result


def _ready(environment: Environment, state: StepState) -> StepState:
    """The state of a RUN with all that its command needs, also what it failed for the want of. Raises what the step
    raises."""
    node = state.node
    assert isinstance(node, RunNode)
    check_required(environment, node.mounts)
    contents = dict(state.contents)
    for name, tree, source in context_parts(node):
        if name not in contents:
            contents[name] = context_layer(environment, tree.name, source, f"/{MOUNTED}", Trace("", name)).diff_id
    return msgspec.structs.replace(state, contents=contents, unready=False)


def repeat_step(environment: Environment, state: StepState) -> list[ChangedFile]:
    """What a COPY, ADD or WORKDIR would add or change, sorted by path. Its layer is made, so that whatever can fail in
    it does, and thrown away. Raises what the step raises."""
    node = state.node
    assert isinstance(node, (CopyNode, WorkdirNode))
    with environment.store.scratch() as scratch, ExitStack() as held:
        if isinstance(node, CopyNode):
            sources = [open_source(environment, node, source, state.roots, held) for source in node.sources]
            staging, _ = stage_copy(environment, node, state.parent, sources, scratch)
        else:
            staging, _ = stage_workdir(environment, node, state.parent)
        form = Compression(UNCOMPRESSED)
        write_layer(staging, scratch, compression=form, epoch=environment.epoch, guard=environment.guard)
        below = root_tree(environment, state.parent)
        return [
            changed
            for entry in staging.entries()
            for changed in written_file(entry.path, below.lstat(entry.path), entry.info)
        ]
