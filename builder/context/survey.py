"""What a build can see of a directory, how large that is, and which line of an ignore file decided."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

import msgspec

from builder.context.ignore import Matcher, Rule
from builder.errors import ContextError


class Seen(msgspec.Struct, frozen=True):
    """A file or directory: `size` bytes in `files` regular files, links and others, for a directory those of all that
    is in it. Links, devices and directories have no size of their own."""

    path: str
    is_directory: bool
    size: int
    files: int


class Survey(msgspec.Struct, frozen=True):
    """`seen` is all that a build sees, a directory before what is in it, names sorted by their bytes; `whole` that in
    total. `ignored` are the topmost paths in which a build sees nothing, largest first."""

    whole: Seen
    seen: tuple[Seen, ...]
    ignored: tuple[Seen, ...]

    @property
    def ignored_size(self) -> int:
        return sum(one.size for one in self.ignored)

    @property
    def ignored_files(self) -> int:
        return sum(one.files for one in self.ignored)


class Verdict(msgspec.Struct, frozen=True):
    """Whether a build sees a path, and the rule that decided, with the name of its file; without one no rule matched.
    `holds_seen` marks an ignored directory in which an exception keeps something."""

    path: str
    is_seen: bool
    rule: Rule | None = None
    source: str = ""
    holds_seen: bool = False


class _Found(msgspec.Struct):
    """A path while its directory's totals are summed. `seen` becomes true of what holds something that is seen."""

    path: str
    is_directory: bool
    seen: bool
    size: int = 0
    files: int = 0
    unseen_size: int = 0
    unseen_files: int = 0


def survey(root: str, matcher: Matcher | None) -> Survey:
    """Look at every file below `root`; no symbolic link is followed. As in a build, an ignored directory is seen if an
    exception keeps something in it. Raises ContextError for what cannot be read, unless it is ignored."""
    whole = _Found("", True, True)
    found = {"": whole}
    for one in _walk(root, matcher):
        found[one.path] = one
    for one in reversed(found.values()):  # what is in a directory comes before it
        if one is not whole:
            above = found[one.path.rpartition("/")[0]]
            above.seen = above.seen or one.seen
            above.size += one.size
            above.files += one.files
            above.unseen_size += one.unseen_size
            above.unseen_files += one.unseen_files
    seen = tuple(Seen(one.path, one.is_directory, one.size, one.files) for one in found.values() if one.seen)
    ignored = [
        Seen(one.path, one.is_directory, one.unseen_size, one.unseen_files)
        for one in found.values()
        if not one.seen and found[one.path.rpartition("/")[0]].seen
    ]
    ignored.sort(key=lambda one: (-one.size, one.path))
    return Survey(seen[0], seen[1:], tuple(ignored))


def judge(matcher: Matcher | None, path: str, *, holds_seen: Callable[[str], bool] = lambda path: False) -> Verdict:
    """What an ignore file says of a path relative to the context, whether or not there is such a file. `holds_seen`
    tells whether something is seen in an ignored directory."""
    if matcher is None:
        return Verdict(path, True)
    rule = matcher.explain(path)
    hidden = rule is not None and not rule.negated
    return Verdict(path, not hidden, rule, matcher.rules.source, hidden and holds_seen(path))


def _walk(root: str, matcher: Matcher | None) -> Iterator[_Found]:
    """Everything, a directory before what is in it; a directory in which nothing can be seen as one."""
    waiting = _scan(root, "", matcher, hidden=False)
    while waiting:
        path, entry, hidden = waiting.pop()
        if not entry.is_dir(follow_symlinks=False):
            size = _size(entry)
            yield _Found(path, False, False, 0, 0, size, 1) if hidden else _Found(path, False, True, size, 1)
        elif hidden and matcher is not None and matcher.may_skip_directory(path):
            size, files = _total(entry.path)
            yield _Found(path, True, False, 0, 0, size, files)
        else:
            yield _Found(path, True, not hidden)
            waiting += _scan(root, path, matcher, hidden=hidden)


def _scan(
    root: str, directory: str, matcher: Matcher | None, *, hidden: bool
) -> list[tuple[str, os.DirEntry[str], bool]]:
    """The entries of a directory, last first."""
    try:
        with os.scandir(os.path.join(root, directory)) as entries:
            found = sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=True)
    except OSError as error:
        if hidden:
            return []
        raise ContextError(
            f"cannot be read: {error.strerror}",
            place=os.path.join(root, directory),
            remedy="make it readable, or list it in .dockerignore" if directory else None,
        ) from error
    prefix = f"{directory}/" if directory else ""
    test = matcher.tester(directory) if matcher is not None else None
    return [(prefix + entry.name, entry, test is not None and test(prefix + entry.name)) for entry in found]


def _total(directory: str) -> tuple[int, int]:
    """Bytes and number of all files below a directory, as far as it can be read."""
    size = files = 0
    waiting = [directory]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += _size(entry)
                        files += 1
        except OSError:
            continue
    return size, files


def _size(entry: os.DirEntry[str]) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return 0  # removed meanwhile
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
