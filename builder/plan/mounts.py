"""RUN --mount: from the expanded text of the flag to a planned mount (`convert_runmount.go`, `convert_secrets.go`)."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from builder.dockerfile.instructions import Run
from builder.dockerfile.mounts import Mount as ParsedMount
from builder.dockerfile.mounts import parse_mount
from builder.errors import PlanError
from builder.plan.paths import clean, join
from builder.plan.stages import SCRATCH
from builder.plan.steps import (
    MAIN_CONTEXT,
    BindMount,
    CacheMount,
    FromContext,
    FromNothing,
    Mount,
    SecretMount,
    SshMount,
    TmpfsMount,
    Tree,
)

if TYPE_CHECKING:
    from builder.plan.state import StageState


def plan_mounts(state: StageState, instruction: Run) -> tuple[Mount, ...]:
    """The mounts of a RUN, in the order in which they are written. Raises PlanError."""
    return tuple(_plan(state, parse_mount(state.scope.expand(word))) for word in instruction.mounts)


def _plan(state: StageState, mount: ParsedMount) -> Mount:
    if mount.type == "secret":
        return _secret(state, mount)
    if mount.type == "ssh":
        return _ssh(state, mount)
    target = _target(state, mount)
    if mount.type == "tmpfs":
        return TmpfsMount(target=target, size=mount.size or 0)
    tree = _tree(state, mount)
    source = join("/", mount.source)
    if mount.type == "cache":
        return CacheMount(
            target=target,
            cache=f"{state.options.cache_namespace}/{mount.id or clean(mount.target)}",
            sharing=mount.sharing or "shared",
            tree=tree,
            source=source,
            read_only=mount.read_only,
            mode=mount.mode,
            uid=mount.uid,
            gid=mount.gid,
        )
    return BindMount(target=target, tree=tree, source=source, writable=not mount.read_only)


def _tree(state: StageState, mount: ParsedMount) -> Tree:
    if mount.from_:
        return (
            FromNothing()
            if mount.from_ == SCRATCH and not state.has_stage(SCRATCH)
            else state.tree_of(mount.from_, False)
        )
    return FromNothing() if mount.type == "cache" else FromContext(MAIN_CONTEXT)


def _target(state: StageState, mount: ParsedMount) -> str:
    target = _absolute(state, mount.target)
    if target == "/":
        raise PlanError("a mount needs a target below /", remedy="add target=/path to --mount")
    return target


def _absolute(state: StageState, target: str) -> str:
    """A target, below the working directory unless it is absolute."""
    return clean(target) if target.startswith("/") else join("/", state.image.config.working_dir, target)


def _secret(state: StageState, mount: ParsedMount) -> SecretMount:
    secret = mount.source or mount.id or posixpath.basename(mount.target)
    target = mount.target or (None if mount.env else f"/run/secrets/{posixpath.basename(secret)}")
    return SecretMount(
        secret=secret,
        target=_absolute(state, target) if target else None,
        variable=mount.env or None,
        required=mount.required,
        mode=0o400 if mount.mode is None else mount.mode,
        uid=mount.uid or 0,
        gid=mount.gid or 0,
    )


def _ssh(state: StageState, mount: ParsedMount) -> SshMount:
    if mount.source:
        raise PlanError("an ssh mount has no source", remedy="name the agent with id=NAME")
    return SshMount(
        agent=mount.id or "default",
        target=_absolute(state, mount.target) if mount.target else None,
        required=mount.required,
        mode=0o600 if mount.mode is None else mount.mode,
        uid=mount.uid or 0,
        gid=mount.gid or 0,
    )
