"""Ignore files: the table testdata/ignore.toml, a naive matcher as the oracle, and what reads the files."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.context import ignore_pattern
from builder.context.go_regex import BadPattern
from builder.context.ignore import Matcher, Rules, compile_patterns, compile_rules, find_ignore_file
from builder.errors import ContextError

ROOT = Path(__file__).parents[2]
CASES = tomllib.loads((ROOT / "testdata/ignore.toml").read_text())["case"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_table(case: dict[str, Any]) -> None:
    text = case["text"] if "text" in case else "\n".join(case["patterns"])
    if "error" in case:
        with pytest.raises(ContextError, match=case["error"]) as caught:
            compile_rules(text, "some.dockerignore")
        assert caught.value.place == f"some.dockerignore:{case['line']}"
        return
    rules = compile_rules(text)
    matcher = Matcher(msgspec.json.decode(msgspec.json.encode(rules), type=Rules))  # as it comes from a cache
    for path in case.get("hidden", []):
        assert matcher.ignored(path), path
        rule = matcher.explain(path)
        assert rule is not None
        assert not rule.negated
    for path in case.get("kept", []):
        assert not matcher.ignored(path), path
        rule = matcher.explain(path)
        assert rule is None or rule.negated
    for path in case.get("skipped", []):
        assert matcher.may_skip_directory(path), path
    for path in case.get("walked", []):
        assert not matcher.may_skip_directory(path), path


def test_explain_names_line_and_text() -> None:
    matcher = Matcher(compile_rules("# first\n*\n\n!  src \nsrc/gen\n"))
    found = [matcher.explain(path) for path in ("x/y", "src/a", "src/gen/z")]
    assert [(rule.line, rule.text) for rule in found if rule] == [(2, "*"), (4, "!  src "), (5, "src/gen")]
    assert matcher.explain("") is None


def test_the_root_is_never_hidden() -> None:
    for text in ("**", "*", ".", "!x\n**"):
        matcher = Matcher(compile_rules(text))
        assert not matcher.ignored("")
        assert not matcher.may_skip_directory("")


def test_names_that_are_not_utf8() -> None:
    matcher = Matcher(compile_rules("*.bin\n?\n" + b"\xfe\xff".decode("utf-8", "surrogateescape")))
    assert all(matcher.ignored(name) for name in ("\udcff.bin", "\udcff", "\udcfe\udcff"))
    assert not matcher.ignored("\udcff\udcff")


def test_no_rules_hide_nothing() -> None:
    matcher = Matcher(Rules())
    assert not matcher.ignored("a/b")
    assert matcher.explain("a/b") is None


def test_deep_paths() -> None:
    path = "/".join(["d"] * 5000)
    assert Matcher(compile_rules("d/d\n!x")).ignored(path)
    assert not Matcher(compile_rules("**/x")).ignored(path)


def test_many_stars_are_quick() -> None:
    matcher = Matcher(compile_rules("**/" * 40 + "x"))
    assert not matcher.ignored("/".join(["ab"] * 60))


@pytest.mark.parametrize("exception", ["", "!kept\n"])
def test_many_patterns_are_tried_at_once(exception: str) -> None:
    """Whether anything hides a path is one regular expression, however many patterns there are."""
    matcher = Matcher(compile_rules("".join(f"**/unlike{number}*\n" for number in range(300)) + exception))
    tried = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal tried
        tried += event == "c_call" and getattr(argument, "__name__", "") == "match"

    sys.setprofile(note)
    try:
        assert not matcher.ignored("some/path")
    finally:
        sys.setprofile(None)
    assert 1 <= tried <= 3  # of the path, and of the directories above it


def test_patterns_of_exclude() -> None:
    matcher = Matcher(compile_patterns(["*.md", "!keep.md", "/rooted", "#x"]))
    assert matcher.ignored("a.md")
    assert matcher.ignored("#x")
    assert not matcher.ignored("keep.md")
    assert not matcher.ignored("rooted")
    with pytest.raises(ContextError, match="--exclude:2: bad pattern"):
        compile_patterns(["a", "[a"])


def test_the_pattern_class_works_in_pathspec() -> None:
    from pathspec import PathSpec

    from builder.context.ignore_pattern import DockerPattern

    spec = PathSpec([DockerPattern("*.log"), DockerPattern("!keep.log"), DockerPattern("")])
    assert list(spec.match_files(["a.log", "keep.log", "d/a.log"])) == ["a.log"]


# --------------------------------------------------------------------------- an oracle


def naive(pattern: str, path: str) -> bool:
    """Docker's matching by trying everything; for clean patterns of letters, `/`, `*`, `?` and `**`."""
    if pattern.startswith("**") and not set(pattern[2:]) & set("*?"):
        rest = pattern[2:]
        return path.endswith(rest) or (rest.startswith("/") and path == rest[1:])
    if not pattern:
        return not path
    if pattern.startswith("**"):
        rest = pattern[2:].removeprefix("/")
        if not rest:
            return True
        return any(naive_inner(rest, path[end:]) for end in [0, *(i + 1 for i, c in enumerate(path) if c == "/")])
    return naive_inner(pattern, path)


def naive_inner(pattern: str, path: str) -> bool:
    if not pattern:
        return not path
    if pattern.startswith("**"):
        rest = pattern[2:].removeprefix("/")
        if not rest:
            return True
        return any(naive_inner(rest, path[end:]) for end in [0, *(i + 1 for i, c in enumerate(path) if c == "/")])
    if pattern[0] == "*":
        return naive_inner(pattern[1:], path) or (path[:1] not in ("", "/") and naive_inner(pattern, path[1:]))
    if not path or (path[0] == "/" if pattern[0] == "?" else path[0] != pattern[0]):
        return False
    return naive_inner(pattern[1:], path[1:])


def naive_ignored(patterns: list[tuple[bool, str]], path: str) -> bool:
    """The walk from the root, with the list of what matched the directory above, as the reference does it."""
    above: list[bool] = []
    hidden = False
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        current, matched, hidden = "/".join(parts[:end]), [], False
        for index, (negated, pattern) in enumerate(patterns):
            match = bool(above) and above[index]
            if not match and negated == hidden:
                match = naive(pattern, current)
            matched.append(match)
            if match:
                hidden = not negated
        above = matched
    return hidden


NAMES = st.text("ab", min_size=1, max_size=2)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PIECES = st.lists(st.sampled_from(["a", "b", "*", "?", "**"]), min_size=1, max_size=3).map("".join)
PATTERNS = st.lists(PIECES, min_size=1, max_size=3).map("/".join)


@given(st.lists(st.tuples(st.booleans(), PATTERNS), min_size=1, max_size=4), PATHS)
def test_agrees_with_the_naive_matcher(patterns: list[tuple[bool, str]], path: str) -> None:
    matcher = Matcher(compile_rules("\n".join("!" * negated + pattern for negated, pattern in patterns)))
    assert matcher.ignored(path) is naive_ignored(patterns, path)
    rule = matcher.explain(path)
    assert (rule is not None and not rule.negated) is matcher.ignored(path)
    if matcher.may_skip_directory(path):
        for below in ("a", "b/a", "ab/b/a"):
            assert naive_ignored(patterns, f"{path}/{below}")


@given(st.text(alphabet=st.sampled_from("ab*?[]^-!\\/.#:d \n\r\t\x00é\ufeff\udc80{}()|+$"), max_size=30), PATHS)
def test_any_text_is_read_or_refused(text: str, path: str) -> None:
    try:
        rules = compile_rules(text)
    except ContextError:
        return
    matcher = Matcher(rules)
    matcher.ignored(path)
    matcher.explain(path)
    matcher.may_skip_directory(path)


# --------------------------------------------------------------------------- files


def test_the_dockerfiles_own_ignore_file_wins(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / ".dockerignore").write_text("common")
    dockerfile = tmp_path / "docker" / "My.Dockerfile"
    found = find_ignore_file(str(tmp_path), str(dockerfile))
    assert found is not None
    assert (found.name, found.text) == (".dockerignore", "common")
    (tmp_path / "docker" / "My.Dockerfile.dockerignore").write_text("")
    found = find_ignore_file(str(tmp_path), str(dockerfile))
    assert found is not None
    assert (found.name, found.text) == ("My.Dockerfile.dockerignore", "")


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ((".containerignore",), ".containerignore"),
        ((".containerignore", ".dockerignore"), ".containerignore"),
        (("My.containerignore", ".containerignore", ".dockerignore"), "My.containerignore"),
        (("My.dockerignore", "My.containerignore", ".containerignore"), "My.dockerignore"),
        (("My.dockerignore", ".containerignore"), "My.dockerignore"),
    ],
)
def test_ignore_files_of_containers(tmp_path: Path, there: tuple[str, ...], taken: str) -> None:
    """As buildah chooses (pkg/parse, ContainerIgnoreFile)."""
    for name in there:
        (tmp_path / name).write_text(f"in {name}")
    found = find_ignore_file(str(tmp_path), str(tmp_path / "My"))
    assert found is not None
    assert (found.name, found.text) == (taken, f"in {taken}")


def test_no_ignore_file(tmp_path: Path) -> None:
    assert find_ignore_file(str(tmp_path), None) is None
    (tmp_path / ".dockerignore").mkdir()
    assert find_ignore_file(str(tmp_path), str(tmp_path / "Dockerfile")) is None


def test_a_linked_ignore_file_stays_inside(tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "etc").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (context / ".dockerignore").symlink_to("../secret")
    assert find_ignore_file(str(context), None) is None
    (context / "etc" / "ignore").write_text("inside")
    (context / ".dockerignore").unlink()
    (context / ".dockerignore").symlink_to("etc/ignore")
    found = find_ignore_file(str(context), None)
    assert found is not None
    assert found.text == "inside"


@pytest.mark.parametrize(
    ("link", "text"),
    [("../context/etc/ignore", "in the context"), ("beside", "beside"), ("../secret", "general"), ("loop", "general")],
)
def test_a_linked_ignore_file_of_a_dockerfile_stays_inside(tmp_path: Path, link: str, text: str) -> None:
    """Beside the Dockerfile, or in the context; otherwise it counts as missing."""
    context, docker = tmp_path / "context", tmp_path / "docker"
    (context / "etc").mkdir(parents=True)
    docker.mkdir()
    (context / ".dockerignore").write_text("general")
    (context / "etc" / "ignore").write_text("in the context")
    (docker / "beside").write_text("beside")
    (docker / "loop").symlink_to("loop")
    (tmp_path / "secret").write_text("x")
    (docker / "Dockerfile.dockerignore").symlink_to(link)
    found = find_ignore_file(str(context), str(docker / "Dockerfile"))
    assert found is not None
    assert found.text == text


def test_a_cached_rebuild_loads_no_heavy_module() -> None:
    script = (
        "import sys, builder.context.local, builder.context.ignore as i, builder.context.source as s\n"
        "i.Matcher(i.Rules()); s.parse_context('.')\n"
        "print([n for n in ('pathspec', 'httpx', 'subprocess', 'tarfile', 'tempfile', 'shutil') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the time that matching takes


def plain_expression(pattern: str) -> str | None:
    """What BuildKit's expression says, without any care for the time it takes."""
    kind, expression = ignore_pattern._go_expression(pattern)
    if kind != "regex":
        return None
    return rf"\A(?a:{expression.replace('(.*/)?', '(?:.*/)?')})\Z"


parts = st.sampled_from(["a", "b", "/", "*", "**", "**/", "?", "[^b]", "[ab]", "a/", "/a", "*a", ".", "\\*", "\\S"])


@settings(max_examples=600)
@given(st.lists(parts, min_size=1, max_size=9), st.lists(st.text("ab/.*", max_size=14), min_size=1, max_size=8))
def test_what_makes_matching_quick_changes_no_match(parts: list[str], paths: list[str]) -> None:
    pattern = ignore_pattern.clean_path("".join(parts))
    expected = plain_expression(pattern)
    if expected is None:
        return
    try:
        quick = ignore_pattern.translate(pattern)
    except BadPattern:
        return
    for path in paths:
        assert bool(re.match(quick, path)) == bool(re.match(expected, path)), (pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 20 + "b", "a" * 250), ("?*" * 20 + "b", "a" * 250), ("**/a/" * 20 + "b", "a/" * 1000 + "c"),
        ("**/*a*a*a*b/" * 10 + "x", "aaaaaaaaaaaa/" * 150 + "y"), ("*[ab]" * 20 + "c", "ab" * 120),
        ("a/*b*/" * 30 + "**", "a/bbbbbbbbbbbb/" * 30), ("**/*" * 12 + "x", "a/" * 1000 + "c"),
    ],
)  # fmt: skip
def test_many_wildcards_are_matched_in_good_time(pattern: str, path: str) -> None:
    started = time.thread_time()
    with contextlib.suppress(ContextError):  # or it is refused for that reason
        Matcher(compile_rules(pattern)).ignored(path)
    assert time.thread_time() - started < 1
