"""COPY and ADD from the context onto a parent: what the layer holds, entry by entry.

The rules were learnt from BuildKit; the acceptance cases compare whole images, these say what each rule does alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from builder.context.local import LocalTree
from builder.errors import ContextError, LayerError, StepFailed
from builder.plan.steps import CopyFiles, CopyInline, FromContext, FromNode, FromNothing
from builder.store.store import Store
from tests.solver.support import OLD, base_layer, entries, environment, node, outcome, run_copy, write

CONTEXT: dict[str, str | bytes | None] = {
    "f": "f",
    "g": "g",
    "h.txt": "h",
    "d/a": "a",
    "d/b": "b",
    "d/sub/c": "c",
    "d/empty": None,
    "link": "-> f",
    "dlink": "-> d",
    "d/up": "-> ../f",
    "[x]": "brackets",
    "é": "accent",
    "x1/y/z": "1",
    "x2/y/z": "2",
    "out": "-> /../../f",
}
PARENT: dict[str, str | bytes | None] = {
    "etc/passwd": "app:x:5:6:::\n",
    "etc/group": "grp:x:7:\n",
    "dir/old": "old",
    "file": "file",
    "todir": "-> dir",
    "tofile": "-> file",
    "abs": "-> /dir",
    "loop": "-> loop",
    "dangling": "-> nowhere/deep",
    "up": "-> ../../../dir",
}
D = "dir 755 0:0"


def f(content: str, mode: str = "644", owner: str = "0:0") -> str:
    return f"file {mode} {owner} {content}"


# name: (sources, destination, fields, expected entries or the error's beginning)
CASES: dict[str, tuple[list[str], str, dict[str, Any], Any]] = {
    "a file to a new name": (["f"], "/new", {}, {"new": f("f")}),
    "a file below new directories": (["f"], "/a/b/new", {}, {"a": D, "a/b": D, "a/b/new": f("f")}),
    "a file into a new directory": (["f"], "/a/", {}, {"a": D, "a/f": f("f")}),
    "a file into a directory that is there": (["f"], "/dir", {}, {"dir": D, "dir/f": f("f")}),
    "a file over a file": (["f"], "/file", {}, {"file": f("f")}),
    "a file through a link to a directory": (["f"], "/todir/", {}, {"dir": D, "dir/f": f("f")}),
    "a file into a link to a directory": (["f"], "/todir", {}, {"dir": D, "dir/f": f("f")}),
    "a file through an absolute link": (["f"], "/abs/x", {}, {"dir": D, "dir/x": f("f")}),
    "a file through a link that leads out": (["f"], "/up/x", {}, {"dir": D, "dir/x": f("f")}),
    "a file over a link to a file": (["f"], "/tofile", {}, {"file": f("f")}),
    "a file through a dangling link": (
        ["f"],
        "/dangling/",
        {},
        {"nowhere": D, "nowhere/deep": D, "nowhere/deep/f": f("f")},
    ),
    "a file through a loop": (["f"], "/loop/x", {}, "too many levels of symbolic links"),
    "a file below a file": (["f"], "/file/x", {}, "cannot make the directory /file"),
    "several files": (["f", "g"], "/dir/", {}, {"dir": D, "dir/f": f("f"), "dir/g": f("g")}),
    "several files to one name": (["f", "g"], "/new", {}, {"new": f("g")}),
    "a directory's contents": (
        ["d"],
        "/new",
        {},
        {
            "new": D,
            "new/a": f("a"),
            "new/b": f("b"),
            "new/empty": D,
            "new/sub": D,
            "new/sub/c": f("c"),
            "new/up": "link 0:0 -> ../f",
        },
    ),
    "a directory into one that is there": (["x1"], "/dir", {}, {"dir": D, "dir/y": D, "dir/y/z": f("1")}),
    "a directory over a file": (["x1"], "/file", {}, "cannot copy the directory /x1 onto /file"),
    "a file over a directory": (["d"], "/", {"files": {"dir": "x"}}, None),
    "directories are merged": (["x1", "x2"], "/n/", {}, {"n": D, "n/y": D, "n/y/z": f("2")}),
    "a link is followed": (["link"], "/new", {}, {"new": f("f")}),
    "a link's name is kept": (["link"], "/dir/", {}, {"dir": D, "dir/link": f("f")}),
    "a link to a directory is followed": (["dlink/sub"], "/n", {}, {"n": D, "n/c": f("c")}),
    "a link that leads out stays inside": (["out"], "/new", {}, {"new": f("f")}),
    "dots do not lead out": (["../../f"], "/new", {}, {"new": f("f")}),
    "a missing file": (["nope"], "/", {}, "/nope was not found"),
    "a broken link": (
        ["broken"],
        "/",
        {"files": {"broken": "-> /etc/passwd"}},
        "/broken is a link to /etc/passwd, which is not in",
    ),
    "a wildcard": (["*.txt"], "/n/", {}, {"n": D, "n/h.txt": f("h")}),
    "a wildcard for one name": (
        ["?"],
        "/n/",
        {},
        {
            "n": D,
            "n/a": f("a"),
            "n/b": f("b"),
            "n/empty": D,
            "n/f": f("f"),
            "n/g": f("g"),
            "n/sub": D,
            "n/sub/c": f("c"),
            "n/up": "link 0:0 -> ../f",
            "n/é": f("accent"),
        },
    ),
    "a wildcard in the middle": (["x*/y/z"], "/n/", {}, {"n": D, "n/z": f("2")}),
    "a class": (["[fg]"], "/n/", {}, {"n": D, "n/f": f("f"), "n/g": f("g")}),
    "a bracket in a class": (["[[]x]"], "/n/", {}, {"n": D, "n/[x]": f("brackets")}),
    "an escape without a wildcard counts as it is": (["\\[x]"], "/n/", {}, "/\\[x] was not found"),
    "a wildcard that matches nothing": (["*.none"], "/n/", {}, {}),
    "a wildcard in a missing directory": (["none/*"], "/n/", {}, "/none was not found"),
    "a wildcard below a file": (["f/*"], "/n/", {}, {}),
    "a malformed wildcard": (["[a"], "/n/", {}, "malformed pattern '[a'"),
    "two stars are one": (["**"], "/n/", {"only": ["n/f", "n/y/z"]}, {"n/f": f("f"), "n/y/z": f("2")}),
    "an owner": (["f"], "/a/b", {"chown": "1:2"}, {"a": "dir 755 1:2", "a/b": f("f", owner="1:2")}),
    "an owner by name": (["f"], "/b", {"chown": "app:grp"}, {"b": f("f", owner="5:7")}),
    "an owner that nobody is": (["f"], "/b", {"chown": "nobody"}, {"b": f("f")}),
    "an owner does not reach what was there": (
        ["f"],
        "/dir/",
        {"chown": "1:2"},
        {"dir": D, "dir/f": f("f", owner="1:2")},
    ),
    "a mode": (["f"], "/a/b", {"chmod": 0o4750}, {"a": "dir 750 0:0", "a/b": f("f", "4750")}),
    "a symbolic mode": (
        ["d"],
        "/n",
        {"chmod": "g+w,o-rx"},
        {
            "n": D,
            "n/a": f("a", "660"),
            "n/b": f("b", "660"),
            "n/empty": "dir 770 0:0",
            "n/sub": "dir 770 0:0",
            "n/sub/c": f("c", "660"),
            "n/up": "link 0:0 -> ../f",
        },
    ),
    "without": (
        ["d"],
        "/n",
        {"excludes": ("sub", "a")},
        {"n": D, "n/b": f("b"), "n/empty": D, "n/up": "link 0:0 -> ../f"},
    ),
    "without some, but with": (["d"], "/n", {"excludes": ("*", "!sub/c")}, {"n": D, "n/sub": D, "n/sub/c": f("c")}),
    "without what is named itself": (["f"], "/n", {"excludes": ("f",)}, {"n": f("f")}),
    "link": (["f"], "/todir/x", {"link": True}, {"todir": D, "todir/x": f("f")}),
    "link with an owner by name": (["f"], "/x", {"link": True, "chown": "app"}, {"x": f("f", owner="5:6")}),
}


@pytest.mark.parametrize("name", CASES)
def test_table(tmp_path: Path, store: Store, name: str) -> None:
    sources, to, fields, expected = CASES[name]
    fields = dict(fields)
    only = fields.pop("only", None)
    context = write(tmp_path / "context", {**CONTEXT, **fields.pop("files", {})})
    parent = (base_layer(store, write(tmp_path / "parent", PARENT)),)
    made, _ = environment(store, context)
    if expected is None:
        with pytest.raises(StepFailed, match="cannot copy the file /dir onto /dir"):
            run_copy(made, node(*sources, "dir", to=to, **fields), parent)
        return
    result = outcome(lambda: run_copy(made, node(*sources, to=to, **fields), parent))
    if isinstance(expected, str):
        assert isinstance(result, str)
        assert result.startswith(expected)
        return
    assert not isinstance(result, str), result
    found = entries(store, result.diff_id)
    assert (found if only is None else {path: found[path] for path in only}) == expected


def parents(path: str, pattern: str, required: str | None = None) -> CopyFiles:
    return CopyFiles(tree=FromContext(""), path=path, pattern=pattern, required=required)


PARENTS: dict[str, tuple[CopyFiles, Any]] = {
    "a file": (parents("/", "d/sub/c", "/d/sub/c"), ["d", "d/sub", "d/sub/c"]),
    "a directory": (parents("/", "d/sub", "/d/sub"), ["d", "d/sub", "d/sub/c"]),
    "a missing file": (parents("/", "d/none", "/d/none"), "/d/none was not found"),
    "a wildcard": (parents("/", "x*/y/z"), ["x1", "x1/y", "x1/y/z", "x2", "x2/y", "x2/y/z"]),
    "two stars go deeper": (parents("/", "**/c"), ["d", "d/sub", "d/sub/c"]),
    "a pivot": (parents("/d", "sub/c", "/d/sub/c"), ["sub", "sub/c"]),
    "a pivot with a wildcard": (parents("/x*", "y"), ["y", "y/z"]),
    "what matches nothing": (parents("/", "*.none"), []),
    "everything": (parents("/", ""), None),
}


@pytest.mark.parametrize("name", PARENTS)
def test_parents(tmp_path: Path, store: Store, name: str) -> None:
    source, expected = PARENTS[name]
    context = write(tmp_path / "context", CONTEXT)
    (context / "d").chmod(0o2700)
    made, _ = environment(store, context)
    result = outcome(lambda: run_copy(made, node(source, to="/", parents=True)))
    if isinstance(expected, str):
        assert result == expected
        return
    found = entries(store, result.diff_id)
    if expected is not None:
        assert list(found) == expected
    if "d" in found:
        assert found["d"] == "dir 2700 0:0"  # the source's own directory


def test_a_link_to_nowhere_with_its_parents(tmp_path: Path, store: Store) -> None:
    """Named itself it is what is copied, as in BuildKit."""
    context = write(tmp_path / "context", {"d/f": "f"})
    (context / "d/link").symlink_to("/nowhere")
    made, _ = environment(store, context)
    result = run_copy(made, node(parents("/", "d/link", "/d/link"), to="/", parents=True))
    assert list(entries(store, result.diff_id)) == ["d", "d/link"]


@pytest.mark.parametrize(
    ("path", "excludes", "expected"),
    [
        ("link/foo", (), "/link/foo was not found: --parents follows no link within a path"),
        ("sub", ("sub",), "/sub was not found: --exclude leaves nothing of it"),
        ("sub", ("sub/**",), ["sub"]),
        ("sub/foo", ("sub", "!sub/foo"), ["sub", "sub/foo"]),
        ("link", (), ["link"]),
    ],
)
def test_what_is_named_with_its_parents_must_be_taken(
    tmp_path: Path, store: Store, path: str, excludes: tuple[str, ...], expected: Any
) -> None:
    """BuildKit requires it among what it hashes (`RequiredPaths` of `cache/contenthash`)."""
    context = write(tmp_path / "context", {"sub/foo": "f", "subject": "x", "link": "-> sub"})
    made, _ = environment(store, context)
    step = node(parents("/", path, f"/{path}"), to="/", parents=True, excludes=excludes)
    result = outcome(lambda: list(entries(store, run_copy(made, step).diff_id)))
    assert result == expected


def test_a_pivot_may_be_a_link(tmp_path: Path, store: Store) -> None:
    made, _ = environment(store, write(tmp_path / "context", {"sub/foo": "f", "link": "-> sub"}))
    result = run_copy(made, node(parents("/link", "foo", "/link/foo"), to="/", parents=True))
    assert list(entries(store, result.diff_id)) == ["foo"]


def test_modes_times_links_and_special_files_are_kept(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"d/a": "a", "d/b": "b", "top": "t"})
    os.link(context / "d/a", context / "d/hard")
    os.mkfifo(context / "d/pipe", 0o622)
    (context / "d/pipe").chmod(0o622)
    (context / "d/b").chmod(0o4711)
    os.utime(context / "d/b", (OLD + 5, OLD + 5))
    os.utime(context / "d", (OLD, OLD))
    made, _ = environment(store, context)
    done = run_copy(made, node("d", to="/n"))
    found = entries(store, done.diff_id, times=True)
    assert found["n/a"] == f"file 644 0:0 a @{OLD}"
    assert found["n/b"] == f"file 4711 0:0 b @{OLD}"  # clamped to the build's time
    assert found["n/hard"].startswith("hard => n/a")
    assert found["n/pipe"].startswith("type b'6' 622 0:0")
    assert not done.cached


@pytest.mark.parametrize(
    ("path", "to", "expected"),
    [
        ("src", "/new", {"new": OLD - 9}),
        ("src", "/old", {"old": OLD - 9}),
        ("src", "/old/", {"old": OLD - 9}),
        ("src", "/p/q/r/", {"p": OLD, "p/q": OLD, "p/q/r": OLD - 9}),
        ("s*", "/new/", {"new": OLD - 9}),
        ("src/f", "/new/", {"new": OLD}),
        ("/", "/new/", {"new": OLD, "new/src": OLD - 9}),
        ("src", "/", {}),
    ],
)
def test_a_directory_takes_the_time_of_that_whose_contents_it_gets(
    tmp_path: Path, store: Store, path: str, to: str, expected: dict[str, int]
) -> None:
    """As in fsutil's `copyFileTimestamp`; directories above it are as old as the build. Whole trees have no time."""
    base = base_layer(store, write(tmp_path / "base", {"old/g": "g"}))
    context = write(tmp_path / "context", {"src/f": "f"})
    os.utime(context / "src", (OLD - 9, OLD - 9))
    made, _ = environment(store, context)
    found = entries(store, run_copy(made, node(path, to=to), (base,)).diff_id, times=True)
    assert {name: int(words.rpartition("@")[2]) for name, words in found.items() if words.startswith("dir")} == expected


def test_a_lone_name_of_a_hard_link_is_a_file(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"a": "x"})
    os.link(context / "a", context / "b")
    made, _ = environment(store, context)
    done = run_copy(made, node("b", "a", to="/n/"))
    assert entries(store, done.diff_id) == {"n": D, "n/a": f("x"), "n/b": f("x")}


def test_hard_links_of_which_the_first_is_replaced(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"d/a": "x", "e/a": "other"})
    os.link(context / "d/a", context / "d/b")
    made, _ = environment(store, context)
    done = run_copy(made, node("d", "e", to="/n/"))
    assert entries(store, done.diff_id) == {"n": D, "n/a": f("other"), "n/b": f("x")}


def test_inline_files(tmp_path: Path, store: Store) -> None:
    made, _ = environment(store)
    done = run_copy(made, node(CopyInline(name="EOF", data="héllo\n"), CopyInline(name="x/y", data=""), to="/n/"))
    assert entries(store, done.diff_id, times=True) == {
        "n": f"{D} @{OLD}",
        "n/EOF": f"file 644 0:0 héllo\n @{OLD}",
        "n/y": f"file 644 0:0  @{OLD}",
    }


def test_from_another_stage(tmp_path: Path, store: Store) -> None:
    made, _ = environment(store)
    one = base_layer(store, write(tmp_path / "one", {"a": "1", "b": "1"}))
    two = base_layer(store, write(tmp_path / "two", {"b": "2", "l": "-> a"}))
    step = node("/b", "/l", to="/n/", tree=FromNode(3))
    done = run_copy(made, step, (one,), {3: (one, two)})
    assert entries(store, done.diff_id) == {"n": D, "n/b": f("2"), "n/l": f("1")}
    assert run_copy(made, step, (one,), {3: (one, two)}).cached


def test_from_nothing(store: Store) -> None:
    made, _ = environment(store)
    assert outcome(lambda: run_copy(made, node("/x", tree=FromNothing()))) == "/x was not found"
    assert entries(store, run_copy(made, node("/", tree=FromNothing())).diff_id) == {}


def test_a_build_without_a_context(store: Store) -> None:
    made, _ = environment(store)
    with pytest.raises(ContextError, match="this build has no context"):
        run_copy(made, node("f"))
    with pytest.raises(ContextError, match="there is no build context 'other'"):
        run_copy(made, node("f", tree=FromContext("other")))


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    context = write(tmp_path / "context", {"f": "content"})
    made, _ = environment(store, context)
    opened = LocalTree.open

    def shrink(tree: LocalTree, path: str) -> int:
        (context / path).write_text("con")
        return opened(tree, path)

    with monkeypatch.context() as patched:
        patched.setattr(LocalTree, "open", shrink)
        with pytest.raises(LayerError):
            run_copy(made, node("f"))
    assert os.listdir(store.temporary) == []
    assert not run_copy(made, node("f")).cached


def test_user_attributes_are_dropped(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"f": "x"})
    try:
        os.setxattr(context / "f", "user.note", b"n")
    except OSError as error:
        pytest.skip(f"no user attributes here: {error.strerror}")
    made, _ = environment(store, context)
    assert entries(store, run_copy(made, node("f")).diff_id) == {"f": f("x")}
