"""What is seen of a context, compared with the tree that builds read; and which rule decided."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.context.ignore import Matcher, compile_rules
from builder.context.local import LocalTree
from builder.context.survey import Seen, judge, survey
from builder.errors import ContextError
from builder.filesystem import kinds


def make(root: Path, *paths: str) -> Path:
    """Files as large as their paths are long; directories for paths that end with a slash."""
    root.mkdir(parents=True, exist_ok=True)
    for path in paths:
        target = root / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path)
    return root


def matcher(text: str) -> Matcher:
    return Matcher(compile_rules(text))


def everything(tree: LocalTree, directory: str = "") -> list[tuple[str, bool]]:
    found = []
    for name, info in tree.scan(directory):
        path = f"{directory}/{name}" if directory else name
        found.append((path, info.kind == kinds.DIRECTORY))
        if info.kind == kinds.DIRECTORY:
            found += everything(tree, path)
    return found


def test_sizes_are_summed_and_the_rest_is_ignored(tmp_path: Path) -> None:
    root = make(tmp_path / "c", "a/one", "a/b/two", "a/b/three", "node/x/1", "node/x/22", "log", "empty/")
    (root / "link").symlink_to("a")
    found = survey(str(root), matcher("node\na/b\n!a/b/two\nlog"))
    assert found.seen == (
        Seen("a", True, 12, 2),
        Seen("a/b", True, 7, 1),
        Seen("a/b/two", False, 7, 1),
        Seen("a/one", False, 5, 1),
        Seen("empty", True, 0, 0),
        Seen("link", False, 0, 1),
    )
    assert found.whole == Seen("", True, 12, 3)
    assert found.ignored == (Seen("node", True, 17, 2), Seen("a/b/three", False, 9, 1), Seen("log", False, 3, 1))
    assert (found.ignored_size, found.ignored_files) == (29, 4)


def test_without_rules_all_is_seen(tmp_path: Path) -> None:
    root = make(tmp_path / "c", "a/one", "b")
    for rules in (None, matcher(""), matcher("nothing")):
        found = survey(str(root), rules)
        assert [one.path for one in found.seen] == ["a", "a/one", "b"]
        assert found.ignored == ()


PATHS = ["a/b/c", "a/b/d", "a/c", "b/a/c", "b/b", "c", "d/e/"]
PATTERNS = st.sampled_from(
    ["a", "a/b", "*", "**/c", "b/*", "d", "!a", "!a/b/c", "!**/c", "!b/b", "!d/e", "a/*", "!*/b"]
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("survey"), *PATHS)


@given(st.lists(PATTERNS, max_size=5))
def test_a_survey_sees_what_a_build_sees(tree: Path, patterns: list[str]) -> None:
    rules = matcher("\n".join(patterns))
    found = survey(str(tree), rules)
    assert [(one.path, one.is_directory) for one in found.seen] == everything(LocalTree(str(tree), rules))
    assert found.whole.files + found.ignored_files == 6
    assert found.whole.size + found.ignored_size == sum(len(path) for path in PATHS[:-1])
    for one in found.seen:
        verdict = judge(rules, one.path)
        assert verdict.is_seen or one.is_directory
    for one in found.ignored:
        verdict = judge(rules, one.path)
        assert not verdict.is_seen
        assert verdict.rule is not None
        assert not verdict.rule.negated


def test_what_cannot_be_read_matters_only_where_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "c", "closed/a", "closed/b/c", "open")
    original = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("/closed"):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ContextError) as caught:
        survey(str(root), None)
    assert (caught.value.place, caught.value.cause) == (str(root / "closed"), "cannot be read: Permission denied")
    for rules in ("closed", "closed\n!closed/b"):
        assert [one.path for one in survey(str(root), matcher(rules)).seen] == ["open"]


def test_a_context_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="cannot be read"):
        survey(str(tmp_path / "none"), None)


@pytest.mark.parametrize(
    ("path", "seen", "line"),
    [
        ("a", False, 2),
        ("a/x", False, 2),
        ("a/keep", True, 4),
        ("b", True, None),
        ("a/keep/log", False, 5),
        ("", True, None),
    ],
)
def test_the_rule_that_decided(path: str, seen: bool, line: int | None) -> None:
    rules = matcher("# comment\na\n\n!a/keep\n**/log\n")
    verdict = judge(rules, path, holds_seen=lambda path: path == "a")
    assert (verdict.is_seen, verdict.rule.line if verdict.rule else None) == (seen, line)
    assert verdict.source == ".dockerignore"
    assert verdict.holds_seen == (path == "a")
    assert judge(None, path).rule is None
