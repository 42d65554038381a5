"""A step that failed, or that a build stopped before, as data: all that is needed to stand in its place again.

Of a RUN whose command was started that is what the command had, over what it wrote. Of any other step it is the file
system as it stood before the step, with what a command would have there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from builder.errors import StoreError, UsageError
from builder.plan.steps import AnyNode, Plan, RunNode, StepNode
from builder.solver.limits import Limits
from builder.solver.roots import Layers


class StepState(msgspec.Struct, frozen=True, kw_only=True):
    """A step, the layers that it stands on and those that it copies from or that its mounts show (`roots` by node,
    `contents` as `content_name` names them). `mount_points` are those that existed for its command only; `ran` whether
    that ran; `unready` says that it failed before, so that its mounts or its user cannot be had."""

    node: StepNode
    parent: Layers
    roots: dict[int, Layers] = {}
    contents: dict[str, str] = {}
    mount_points: tuple[str, ...] = ()
    ran: bool = True
    unready: bool = False


class FailedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step's state and what of its build it needs. `cause` is the error; the paths of `context`, `dockerfile` and
    `contexts` are absolute.

    Of secrets it is kept where they come from, a path or a variable's name, and never what they are; of SSH agents the
    paths of their sockets or keys. URLs of contexts are kept without a password, or a user that may be a token;
    `withheld` are those, as they are kept, that had one. What a Dockerfile says, and build arguments, is in `state`.

    `keep_git_dir` is whether a main context from a repository has its `.git`.
    """

    state: StepState
    cause: str = ""
    context: str = ""
    dockerfile: str = ""
    contexts: dict[str, str] = {}
    epoch: int | None = None
    network: str = ""
    offline: bool = False
    isolation: str = "default"
    limits: Limits = Limits()
    secrets: dict[str, tuple[str, str]] = {}
    agents: dict[str, tuple[str, ...]] = {}
    withheld: tuple[str, ...] = ()
    keep_git_dir: bool = False


Keep = Callable[[StepState, str, str], str]
"""Keeps a step's state: the cause, and the directory with what was written ('' for none). The name to find it by, '' if
it could not be kept."""

Before = Callable[[StepState, int], None]
"""Is told of each step (the number of its node) before it is looked up, and may raise what stops the build."""


def encode_step(step: FailedStep) -> bytes:
    """Raises StoreError for texts that cannot be written down."""
    try:
        return msgspec.msgpack.encode(step)
    except UnicodeEncodeError as error:
        raise StoreError("the step has texts that are not Unicode") from error


def decode_step(data: bytes) -> FailedStep:
    """Raises StoreError for what another version has written, or is broken."""
    try:
        return msgspec.msgpack.decode(data, type=FailedStep)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(
            "the state of the step cannot be read", remedy="it is broken, or was kept by another version: build again"
        ) from error


def find_break(plan: Plan, text: str) -> frozenset[int]:
    """The steps that `--break` means: a position as it is shown (`build 2/5`, `2/5`, `2`), a line of the Dockerfile
    (`:7`), or a stage (in any case), whose first RUN it is then, or its first step if it has none. Raises
    UsageError."""
    named = [(number, node) for number, node in enumerate(plan.nodes) if text.lower() in _names(node)]
    found = [(number, node) for number, node in named if isinstance(node, StepNode)]
    if not named:
        known = ", ".join(dict.fromkeys(_shown(node) for node in plan.nodes if isinstance(node, StepNode)))
        raise UsageError(
            f"--break={text}: the build has no such step",
            remedy=f"give a position, a line or a stage of these: {known}" if known else "it has no steps",
        )
    if not found:
        raise UsageError(
            f"--break={text}: a build can stop before RUN, COPY, ADD and WORKDIR, and this is {named[0][1].label}",
            remedy="give the next of them, which sees what this one makes",
        )
    if text.isdigit() or "/" in text or text.startswith(":"):
        return frozenset(number for number, _ in found)
    commands = [(number, node) for number, node in found if isinstance(node, RunNode)]
    return frozenset(_first_of_each_platform(commands or found))


def _names(node: AnyNode) -> tuple[str, ...]:
    line = f":{node.range.start}" if node.range is not None else ""
    position = " ".join(node.label[1:].partition("]")[0].split()) if node.label.startswith("[") else ""
    count = position.rpartition(" ")[2]
    return tuple(name for name in (line, position, count, count.partition("/")[0], node.stage) if name)


def _shown(node: StepNode) -> str:
    line = f"line :{node.range.start}" if node.range is not None else "no line"
    return f"{node.label.partition(']')[0].lstrip('[')} ({line})"


def _first_of_each_platform(found: Sequence[tuple[int, StepNode]]) -> list[int]:
    first: dict[str, int] = {}
    for number, node in found:
        first.setdefault(str(node.platform), number)
    return list(first.values())
