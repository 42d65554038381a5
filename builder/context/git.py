"""Contexts and sources in git repositories, fetched with the `git` program.

A remote repository is a stranger: git runs without the user's and the system's configuration, asks for nothing, runs no
hooks or filters, and speaks only http(s), ssh and git with remotes, for submodules too. ssh keeps the user's own keys
and known hosts. As in BuildKit, names are looked up on the remote first (`refs/NAME`, then branches, then tags), only
the commit itself is fetched if the server can do that, and `.git` is kept on demand only.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from builder.context.git_program import Git, GitFailed
from builder.context.git_url import GitRef, parse_git_url
from builder.errors import ContextError
from builder.filesystem.syscalls import remove_tree
from builder.oci.digests import is_hex
from builder.progress import Check, unchecked

__all__ = ["CheckedOut", "GitRef", "Resolved", "checkout", "is_commit", "parse_git_url", "resolve"]

_COMMIT = (40, 64)  # hexadecimal digits of SHA-1 and SHA-256
_CHECKSUM = re.compile(r"[0-9a-fA-F]{1,64}")
_FETCHED = "refs/builder/fetched"
_BRANCH = re.compile(r"refs/[^\0-\x20\x7f~^:?*\[\\]+")
"""What a server may call its default branch: nothing that is an option or a pattern to git (git-check-ref-format)."""
_LATEST = 253_402_300_799  # the last second of the year 9999


class CheckedOut(msgspec.Struct, frozen=True):
    """The commit whose files were checked out, and its time (the committer's) in seconds."""

    commit: str
    time: int


class Resolved(msgspec.Struct, frozen=True):
    """What a reference is on the remote now. `name` is the full name (`refs/heads/main`), `HEAD`, or the commit itself;
    `object` what it points to; `commit` the same, or the commit that an annotated tag points to."""

    name: str
    object: str
    commit: str


def is_commit(text: str) -> bool:
    """Whether `text` is a complete object name (SHA-1 or SHA-256), not a branch or tag."""
    return any(is_hex(text, digits) for digits in _COMMIT)


def resolve(
    ref: GitRef,
    *,
    authorization: str | None = None,
    agent: str = "",
    check: Check = unchecked,
    environ: Mapping[str, str] | None = None,
) -> Resolved:
    """Ask the remote which commit `ref` is, without fetching it; a full commit needs no question.

    `authorization` is the value of an Authorization header, `agent` the socket of an SSH agent (by default that of the
    environment); `check` is called while git runs, and ends it by what it raises; `environ`, by default the process's,
    names proxies and authorities. Raises ContextError, also if it is not `ref.checksum`.
    """
    if ref.checksum and not _CHECKSUM.fullmatch(ref.checksum):
        remedy = "give a commit, or the digits that it begins with"
        raise ContextError(f"invalid checksum {ref.checksum!r}", place=ref.place, remedy=remedy)
    if ref.fetch_by_commit and not is_commit(ref.ref):
        if not is_commit(ref.checksum):
            raise ContextError("fetch-by-commit needs a complete commit as checksum", place=ref.place)
        name = ref.ref if ref.ref.startswith("refs/") else f"refs/heads/{ref.ref}"
        return Resolved(name if ref.ref else ref.checksum, ref.checksum, ref.checksum)
    git = Git(ref, None, authorization, agent, check, environ)
    found = Resolved(*[ref.ref] * 3) if is_commit(ref.ref) else _look_up(ref, git)
    if not any(commit.startswith(ref.checksum.lower()) for commit in (found.object, found.commit)):
        raise ContextError(
            f"{ref.ref or 'the default branch'} is commit {found.commit}, not {ref.checksum}",
            place=ref.place,
            remedy="correct the checksum, if this is the commit that you want",
        )
    return found


def checkout(
    ref: GitRef,
    into: str,
    *,
    keep_git_dir: bool | None = None,
    resolved: Resolved | None = None,
    authorization: str | None = None,
    agent: str = "",
    check: Check = unchecked,
    environ: Mapping[str, str] | None = None,
) -> CheckedOut:
    """Put the files of `ref` (or of its `subdir`) into the existing, empty directory `into`.

    Files have mode 644 or 755 and the time of the checkout, or of the commit with `ref.mtime`. `.git` is kept with
    `keep_git_dir` (by default what the URL says) if no subdirectory was asked for. `resolved` pins what an earlier
    `resolve` found, which explains the other arguments. Raises ContextError; what is in `into` then is for the caller
    to remove.
    """
    import tempfile

    if resolved is None:
        resolved = resolve(ref, authorization=authorization, agent=agent, check=check, environ=environ)
    subdir = posixpath.normpath("/" + ref.subdir).lstrip("/")
    keep = (bool(ref.keep_git_dir) if keep_git_dir is None else keep_git_dir) and not subdir
    work = tempfile.mkdtemp(prefix=".checkout-", dir=into)
    git = Git(ref, work, authorization, agent, check, environ)
    try:
        sha256 = ("--object-format=sha256",) if len(resolved.object) == 64 else ()
        git.run("init", "--quiet", *sha256)
        git.run("remote", "add", "origin", "--", git.remote)
        commit = _fetch(ref, git, resolved)
        git.run("checkout", "--quiet", "--force", "--detach", commit)
        if ref.submodules is not False and os.path.lexists(os.path.join(work, ".gitmodules")):
            _update_submodules(git)
        when = _committed(git, commit)
        if keep:
            _tidy(ref, git)
    except GitFailed as problem:
        raise git.error("cannot be checked out", problem) from problem
    try:
        if not keep:
            remove_tree(os.path.join(work, ".git"))
            _remove_links_to_modules(work)
        source = _subdirectory(ref, work, subdir)
        if ref.mtime == "commit":
            _set_times(source, when)
        for name in os.listdir(source):
            os.rename(os.path.join(source, name), os.path.join(into, name))
        remove_tree(work)
    except OSError as problem:  # git makes longer paths than the system takes
        raise ContextError(f"cannot be checked out: {problem.strerror}", place=ref.place) from problem
    if ref.mtime == "commit":
        os.utime(into, (when, when))
    return CheckedOut(commit, when)


def _committed(git: Git, commit: str) -> int:
    """When a commit was made, in seconds. Some were written without a time that can be read: git shows 1970 then."""
    text = git.run("show", "--no-patch", "--format=%ct", commit).strip()
    when = int(text) if re.fullmatch("[0-9]{1,20}", text) else 0
    return when if when <= _LATEST else 0


def _look_up(ref: GitRef, git: Git) -> Resolved:
    wanted = ref.ref or "HEAD"
    try:
        answer = git.run("ls-remote", "--symref", "--", git.remote, wanted, f"{wanted}^{{}}")
    except GitFailed as problem:
        raise git.error("the repository cannot be read", problem) from problem
    objects: dict[str, str] = {}
    default = "HEAD"
    for line in answer.splitlines():
        first, _, name = line.partition("\t")
        if first.startswith("ref: ") and name == "HEAD":
            found = first.removeprefix("ref: ")
            default = found if _BRANCH.fullmatch(found) else default
        elif is_commit(first):
            objects[name] = first
    if not ref.ref:
        if "HEAD" not in objects:
            raise ContextError(
                "the repository has no default branch", place=ref.place, remedy="name a branch: append #BRANCH"
            )
        return Resolved(default, objects["HEAD"], objects["HEAD"])
    short = ref.ref.removeprefix("refs/")
    for name in (
        f"refs/{short}",
        "refs/heads/" + ref.ref.removeprefix("refs/heads/"),
        "refs/tags/" + ref.ref.removeprefix("refs/tags/"),
    ):
        if name in objects:
            return Resolved(name, objects[name], objects.get(f"{name}^{{}}", objects[name]))
    raise ContextError(
        f"the repository has no branch or tag {ref.ref!r}",
        place=ref.place,
        remedy="a commit must be given with all of its digits" if re.fullmatch("[0-9a-f]{7,}", ref.ref) else None,
    )


def _fetch(ref: GitRef, git: Git, resolved: Resolved) -> str:
    """Bring what was resolved into the repository, with as little as possible around it; returns the commit."""
    direct = is_commit(resolved.name) or ref.fetch_by_commit
    target = resolved.name if resolved.name.startswith("refs/") else _FETCHED
    fetch = ("fetch", "--quiet", "--no-tags", "--force", "--update-head-ok")
    if not direct:
        _fetch_shallow(git, fetch, f"{resolved.name}:{target}")
        if git.run("rev-parse", "--verify", target).strip() == resolved.object:
            return git.run("rev-parse", "--verify", f"{target}^{{commit}}").strip()
        # the remote has moved since it was asked: what was resolved may still be there
    try:
        _fetch_shallow(git, fetch, f"{resolved.object}:{target}")
    except GitFailed:
        # the server hands out branches and tags only; the commit should be in the history of one
        git.run(*fetch[:2], "--force", "--tags", "--", "origin", "+refs/heads/*:refs/remotes/origin/*")
        try:
            git.run("cat-file", "-e", f"{resolved.object}^{{commit}}")
        except GitFailed:
            raise ContextError(f"the repository has no commit {resolved.object}", place=ref.place) from None
        git.run("update-ref", target, resolved.object)
    return git.run("rev-parse", "--verify", f"{resolved.object}^{{commit}}").strip()


def _fetch_shallow(git: Git, fetch: Sequence[str], refspec: str) -> None:
    try:
        git.run(*fetch, "--depth=1", "--", "origin", refspec)
    except GitFailed as problem:
        if "shallow" not in problem.message and "--depth" not in problem.message:
            raise
        git.run(*fetch, "--", "origin", refspec)  # a server of plain files sends everything


def _update_submodules(git: Git) -> None:
    # forced: what a try that failed has cloned would otherwise stay empty in the next one
    update = ("submodule", "--quiet", "update", "--init", "--recursive", "--force")
    try:
        git.run(*update, "--depth=1")
    except GitFailed as problem:
        if "shallow" not in problem.message and "--depth" not in problem.message:
            raise
        git.run(*update)


def _tidy(ref: GitRef, git: Git) -> None:
    """Take what differs from one fetch to the next out of a `.git` that is kept, and those of submodules in it."""
    git.run("remote", "set-url", "origin", "--", ref.place)
    assert git.directory is not None
    for directory in _repositories(os.path.join(git.directory, ".git")):
        for name in ("logs", "FETCH_HEAD", "ORIG_HEAD"):
            remove_tree(os.path.join(directory, name))


def _repositories(top: str) -> Iterator[str]:
    """A repository's own directory, and those of its submodules: `modules/NAME` in it, where NAME may have slashes."""
    pending = [top]
    while pending:
        directory = pending.pop()
        below = directory
        if os.path.lexists(os.path.join(directory, "HEAD")):
            yield directory
            below = os.path.join(directory, "modules")
        if os.path.isdir(below):
            with os.scandir(below) as entries:
                pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def _remove_links_to_modules(work: str) -> None:
    """Remove the `.git` files of submodules: what they point to is gone. No repository can hold a file of this name."""
    for entry in _below(work):
        if entry.name == ".git" and not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)


def _subdirectory(ref: GitRef, work: str, subdir: str) -> str:
    """The directory to take, reached over directories only: a link in the repository must not lead elsewhere."""
    path = work
    for part in subdir.split("/") if subdir else ():
        path = os.path.join(path, part)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            raise ContextError(f"the repository has no directory {ref.subdir!r}", place=ref.place) from None
        if not stat.S_ISDIR(mode):
            raise ContextError(f"{ref.subdir!r} is not a directory of the repository", place=ref.place)
    return path


def _set_times(root: str, when: int) -> None:
    for entry in _below(root):
        os.utime(entry.path, (when, when), follow_symlinks=False)


def _below(root: str) -> Iterator[os.DirEntry[str]]:
    """All that is below a directory, however deep: `os.walk` goes no deeper than Python's stack. Raises OSError."""
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as found:
            entries = list(found)
        yield from entries
        pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
