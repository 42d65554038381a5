"""Which files a COPY or ADD takes: wildcards, links, include and exclude patterns.

The behaviour is that of BuildKit's fsutil `copy` package. Nothing here looks at the destination, so that what a step
takes can be known, and hashed, without its parent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from builder.context.ignore import Matcher, compile_patterns
from builder.dockerfile.text import nearest
from builder.errors import BuilderError, StepFailed
from builder.filesystem import kinds
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo, FileTree
from builder.plan.paths import clean
from builder.plan.steps import CopyFiles
from builder.solver.wildcard import compile_pattern, split


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file that is taken. `relative` is its path below the match ('' for the match itself), `path` that in the
    source tree. `lazy` marks a directory that is only there because something below it is."""

    relative: str
    path: str
    info: FileInfo
    lazy: bool = False


class Match(msgspec.Struct, frozen=True):
    """One source after wildcards: `name` is what it is called in a destination that is a directory."""

    name: str
    path: str
    info: FileInfo
    items: tuple[Item, ...]


def select(tree: FileTree, source: CopyFiles, excludes: tuple[str, ...]) -> list[Match]:
    """All that `source` takes from `tree`. A pattern may match nothing. Raises StepFailed for a missing file."""
    if source.required is not None and tree.lstat(resolve(tree, source.required, follow_last=False)) is None:
        raise _missing(source.required, tree)
    include = Matcher(compile_patterns((source.pattern,))) if source.pattern is not None else None
    exclude = Matcher(compile_patterns(excludes)) if excludes else None
    literal = _literal_prefix(source.pattern) if source.pattern is not None else ()
    matches = []
    for path in [source.path] if source.literal else _expand(tree, source.path):
        real = resolve(tree, path)
        info = tree.lstat(real)
        if info is None:
            raise _missing(path, tree)
        name = clean("/" + path).rpartition("/")[2]
        if info.kind == kinds.DIRECTORY:
            items = tuple(_walk(tree, real, info, include, exclude, literal))
        else:
            items = (Item("", real, info),)
        matches.append(Match(name, real, info, items))
    if source.required is not None and source.pattern and not _takes(matches, source.pattern):
        raise _nothing_of(source.required, source.pattern, excluded=bool(excludes))
    return matches


def _takes(matches: list[Match], pattern: str) -> bool:
    """Whether something of what a pattern without wildcards names is there."""
    below = f"{pattern}/"
    return any(item.relative == pattern or item.relative.startswith(below) for match in matches for item in match.items)


def _nothing_of(path: str, pattern: str, *, excluded: bool) -> StepFailed:
    """What --parents asks for is there, but is not taken: BuildKit says that it was not found (`RequiredPaths`)."""
    if excluded:
        return StepFailed(f"{path} was not found: --exclude leaves nothing of it", remedy="mend the patterns")
    folder = pattern.rpartition("/")[0]
    return StepFailed(
        f"{path} was not found: --parents follows no link within a path",
        remedy=f"name the directories that {folder} leads to" if folder else None,
    )


def _expand(tree: FileTree, path: str) -> Iterator[str]:
    """The paths that a source with wildcards means; without, the path itself."""
    base, pattern = split(clean("/" + path))
    if not pattern:
        yield base
        return
    expression = compile_pattern(pattern)
    depth = pattern.count("/")
    root = resolve(tree, base)
    top = tree.lstat(root)
    if top is None:
        raise _missing(base, tree)
    if top.kind != kinds.DIRECTORY:
        return
    waiting = [(root, "", 0)]
    found: list[str] = []
    while waiting:
        directory, relative, level = waiting.pop()
        for name, info in tree.scan(directory):
            below = f"{relative}/{name}" if relative else name
            full = f"{directory}/{name}" if directory else name
            if level == depth and expression.fullmatch(below):
                found.append(full)
            elif info.kind == kinds.DIRECTORY and level < depth:
                waiting.append((full, below, level + 1))
    yield from sorted(found, key=lambda path: path.split("/"))


def _walk(
    tree: FileTree,
    root: str,
    info: FileInfo,
    include: Matcher | None,
    exclude: Matcher | None,
    literal: tuple[str, ...],
) -> Iterator[Item]:
    """A directory's items, parents first. Directories that only lead to included files come as lazy ones."""
    yield Item("", root, info)
    if include is None and exclude is None:
        yield from _walk_all(tree, root, "")
        return
    yield from _walk_filtered(tree, root, "", include, exclude, literal)


def _walk_all(tree: FileTree, directory: str, relative: str) -> list[Item]:
    found: list[Item] = []
    open_directories = [iter(_entries(tree, directory, relative))]
    while open_directories:  # no recursion: how deep a tree is, others decide
        for item in open_directories[-1]:
            found.append(item)
            if item.info.kind == kinds.DIRECTORY:
                open_directories.append(iter(_entries(tree, item.path, item.relative)))
                break
        else:
            open_directories.pop()
    return found


def _entries(tree: FileTree, directory: str, relative: str) -> list[Item]:
    prefix = f"{relative}/" if relative else ""
    if directory == relative:  # one string for both
        return [Item(path := prefix + name, path, info) for name, info in tree.scan(directory)]
    base = f"{directory}/" if directory else ""
    return [Item(prefix + name, base + name, info) for name, info in tree.scan(directory)]


def _walk_filtered(
    tree: FileTree,
    directory: str,
    relative: str,
    include: Matcher | None,
    exclude: Matcher | None,
    literal: tuple[str, ...],
) -> Iterator[Item]:
    pending: list[Item] = []  # directories around the current place that were not taken themselves
    open_directories = [(iter(_entries(tree, directory, relative)), False)]
    while open_directories:
        entries, is_pending = open_directories[-1]
        for item in entries:
            below = item.relative
            if not _may_match(below, literal):
                continue
            taken = include is None or include.ignored(below)
            excluded = exclude is not None and exclude.ignored(below)
            taken = taken and not excluded
            if taken:
                yield from pending
                pending.clear()
                yield item
            if item.info.kind != kinds.DIRECTORY:
                continue
            if excluded and exclude is not None and exclude.may_skip_directory(below):
                continue
            if not taken:
                pending.append(Item(below, item.path, item.info, True))
            open_directories.append((iter(_entries(tree, item.path, below)), not taken))
            break
        else:
            open_directories.pop()
            if is_pending and pending:
                pending.pop()


def _literal_prefix(pattern: str) -> tuple[str, ...]:
    """The leading components of a pattern without special characters: nothing outside them can match."""
    prefix = []
    for part in pattern.split("/"):
        if any(character in part for character in "*?[\\") or part in ("", ".", ".."):
            break
        prefix.append(part)
    return tuple(prefix)


def _may_match(path: str, literal: tuple[str, ...]) -> bool:
    return all(mine == wanted for mine, wanted in zip(path.split("/"), literal, strict=False))


def _missing(path: str, tree: FileTree) -> StepFailed:
    path = path.lstrip("/")
    remedy = _hidden(path, tree)
    link = None if remedy else _broken_link(path, tree)
    if link is not None:
        where = "the build context" if hasattr(tree, "matcher") else "these files"
        return StepFailed(
            f"/{path} is a link to {link}, which is not in {where}", remedy="copy what it leads to, not the link"
        )
    return StepFailed(f"/{path} was not found", remedy=remedy or _meant(path, tree))


def _broken_link(path: str, tree: FileTree) -> str | None:
    """Where a symbolic link leads that is there itself."""
    try:
        info = tree.lstat(path)
    except (OSError, BuilderError):
        return None
    return info.link if info is not None and info.kind == kinds.SYMLINK else None


def _meant(path: str, tree: FileTree) -> str:
    """What to do about a file that is not there: a name beside it that resembles it, or where it was looked for."""
    folder, _, name = path.rpartition("/")
    try:
        close = nearest(name, [other for other, _ in tree.scan(folder)])
    except (OSError, BuilderError):  # nor is the directory
        close = ""
    if close:
        return f"did you mean /{folder}/{close}?" if folder else f"did you mean /{close}?"
    if hasattr(tree, "matcher"):
        return "it is looked for below the build context, which 'builder context ls' lists"
    return "it is looked for in the files of the stage or image that --from names"


def _hidden(path: str, tree: FileTree) -> str | None:
    """What to do about a file that is there, but that an ignore file hides from the build."""
    root, matcher = getattr(tree, "root", None), getattr(tree, "matcher", None)
    if root is None or matcher is None or not os.path.lexists(os.path.join(root, path)):
        return None
    rule = matcher.explain(path)
    if rule is None or rule.negated:
        return None
    where = f"{matcher.rules.source}:{rule.line}"
    return f"{where} ({rule.text.strip()}) hides it; remove that line, or add !{path} below it"
