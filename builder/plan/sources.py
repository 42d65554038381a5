"""COPY and ADD: what they take and where to (`convert_copy.go`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from builder.context.git_url import GitRef, parse_git_url, write_git_url
from builder.dockerfile.instructions import Add, Copy
from builder.errors import PlanError
from builder.plan.checks import check_source
from builder.plan.modes import parse_mode
from builder.plan.paths import destination, has_wildcards, join, normalise
from builder.plan.steps import (
    MAIN_CONTEXT,
    CopyFiles,
    CopyGit,
    CopyInline,
    CopyNode,
    CopySource,
    CopyUrl,
    FromContext,
    Tree,
)

if TYPE_CHECKING:
    from builder.plan.source_policy import SourcePolicy
    from builder.plan.state import StageState


def plan_copy(state: StageState, instruction: Copy | Add) -> tuple[CopyNode, str]:
    """The step for a COPY or an ADD, and its line of history. Raises PlanError."""
    scope = state.scope
    chown = scope.expand_optional(instruction.chown)
    chmod = scope.expand_optional(instruction.chmod)
    paths = [scope.expand(word) for word in instruction.sources]
    target = scope.expand(instruction.destination)
    parents = isinstance(instruction, Copy) and instruction.parents
    sources: list[CopySource] = []
    if isinstance(instruction, Add):
        checksum = scope.expand_optional(instruction.checksum)
        _check_checksum(checksum, paths)
        sources += [_added(instruction, path, checksum, state.options.policy) for path in paths]
        _check_sources(state, instruction, paths, sources)
    else:
        tree: Tree = state.tree_of(instruction.from_, True) if instruction.from_ else FromContext(MAIN_CONTEXT)
        sources += [_copied(tree, path, parents) for path in paths]
        if not instruction.from_:
            _check_sources(state, instruction, paths, sources)
    inline = [_inline(source.path, scope.expand(source.content)) for source in instruction.inline]
    node = CopyNode(
        **state.common(instruction),
        parent=state.node,
        sources=(*sources, *inline),
        destination=destination(state.image.config.working_dir, target),
        chown=chown or None,
        chmod=parse_mode(chmod) if chmod else None,
        link=instruction.link and not chmod,  # BuildKit makes no layer of its own where --chmod is given
        parents=parents,
        excludes=tuple(scope.expand(word) for word in instruction.excludes),
        surroundings=state.surroundings(),
    )
    words = [instruction.keyword.upper()]
    words += ["--parents"] if parents else []
    words += [f"--chown={chown}"] if chown else []
    words += [f"--chmod={chmod}"] if chmod else []
    return node, " ".join([*words, *paths, *(f"<<{here.name}" for here in inline), target, "# buildkit"])


def _inline(name: str, data: str) -> CopyInline:
    """A here-document as a file, which BuildKit makes in an empty directory (`Mkfile`)."""
    if "/" in normalise("/", name).strip("/"):
        raise PlanError(
            f"the here-document {name!r} is named like a file in a directory",
            remedy="name the directory in the destination",
        )
    return CopyInline(name=name, data=data)


def _check_sources(state: StageState, instruction: Copy | Add, paths: list[str], sources: list[CopySource]) -> None:
    for path, source in zip(paths, sources, strict=True):
        if isinstance(source, CopyFiles):
            check_source(state, instruction, path)


def _check_checksum(checksum: str, paths: list[str]) -> None:
    if not checksum:
        return
    if len(paths) != 1:
        raise PlanError("--checksum cannot be given for several sources", remedy="write one ADD for each source")
    if not _is_url(paths[0]) and _git(paths[0]) is None:
        raise PlanError("--checksum is for HTTP(S) and git sources", remedy="remove --checksum for a local file")


def _added(instruction: Add, path: str, checksum: str, policy: SourcePolicy | None) -> CopySource:
    git = _git(path)
    if git is not None:
        if instruction.keep_git_dir is not None and git.keep_git_dir not in (None, instruction.keep_git_dir):
            raise PlanError("--keep-git-dir and the URL's keep-git-dir differ", remedy="give it in one place only")
        if checksum and git.checksum and checksum != git.checksum:
            raise PlanError(f"--checksum={checksum} and the URL's checksum {git.checksum} differ")
        keep = bool(instruction.keep_git_dir)
        if policy is not None:
            asked = msgspec.structs.replace(
                git, checksum=checksum or git.checksum, keep_git_dir=keep or git.keep_git_dir
            )
            taken = policy.git(asked)
            if taken != asked:
                return CopyGit(write_git_url(taken), taken.checksum or None, bool(taken.keep_git_dir))
        return CopyGit(url=path, checksum=checksum or None, keep_git_dir=keep)
    if _is_url(path):
        if checksum and not checksum.startswith("sha256:"):
            raise PlanError(
                f"unsupported checksum {checksum!r}", remedy="write --checksum=sha256:… with 64 hexadecimal digits"
            )
        url, wanted = policy.url(path, checksum) if policy is not None else (path, checksum)
        unpack = bool(instruction.unpack)
        return CopyUrl(url=url, checksum=wanted or None, unpack=unpack, instead_of=path if url != path else "")
    unpack = True if instruction.unpack is None else instruction.unpack
    return CopyFiles(tree=FromContext(MAIN_CONTEXT), path=normalise("/", path), unpack=unpack)


def _copied(tree: Tree, path: str, parents: bool) -> CopySource:
    if _git(path) is not None:
        raise PlanError(f"{path!r} is a git repository, which COPY does not fetch", remedy="use ADD")
    if _is_url(path):
        raise PlanError(f"{path!r} is a URL, which COPY does not fetch", remedy="use ADD")
    if not parents:
        return CopyFiles(tree=tree, path=normalise("/", path))
    base, pivot, pattern = path.partition("/./")
    if not pivot:
        base, pattern = "/", path
    pattern = normalise("/", pattern).removeprefix("/")
    required = None if has_wildcards(base) or has_wildcards(pattern) else normalise("/", join(base, pattern))
    return CopyFiles(tree=tree, path=normalise("/", base), pattern=pattern, required=required)


def _is_url(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def _git(path: str) -> GitRef | None:
    """The git repository that a source names, if it does; a form without a scheme is a path."""
    found = parse_git_url(path)
    return None if found is None or found.looks_local else found
