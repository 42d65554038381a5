"""What metadata is in a copy's key, as `builder.solver.keys` says: what reaches the layer, not what is overridden."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.context.local import LocalTree
from builder.plan.steps import CopyNode, FromContext, FromNode
from builder.solver.contexts import Contexts
from builder.solver.copy import copy
from builder.solver.environment import Environment
from builder.solver.trace import Trace
from builder.store.store import Store
from tests.solver.support import OLD, entries, environment, node, run_copy


class File(msgspec.Struct, frozen=True):
    """A file, or with `link` a symbolic link; with `content` None a directory. `time` is added to OLD."""

    content: str | None = ""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    link: str = ""
    time: int = 0


Files = dict[str, File]
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4711, 0o1777])
OWNERS = st.sampled_from([(0, 0), (1, 2), (3, 0)])
PLAIN = st.builds(File, st.sampled_from(["", "x"]), MODES, OWNERS, st.just(""), st.integers(0, 9))
LINKS = st.builds(File, st.just(""), st.just(0o777), OWNERS, st.sampled_from(["a", "nowhere"]), st.integers(0, 9))
DIRECTORIES = st.builds(File, st.none(), MODES, OWNERS, st.just(""))
TREES = st.fixed_dictionaries({"d": DIRECTORIES, "d/a": PLAIN}, optional={"b": PLAIN, "d/l": LINKS, "e/f/g": PLAIN})
FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "chown": st.sampled_from(["7:8", "9"]),
        "chmod": st.sampled_from([0o600, 0o755, "u+x", "a=rX"]),
        "excludes": st.sampled_from([("b",), ("**/a",), ("none",)]),
        "link": st.booleans(),
    },
)
CHANGES = ("content", "mode", "owner", "time", "root mode", "remove")


def write_tree(root: Path, files: Files, root_mode: int) -> None:
    root.mkdir(parents=True)
    for name, file in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.content is None:
            path.mkdir(exist_ok=True)
        elif file.link:
            path.symlink_to(file.link)
        else:
            path.write_text(file.content)
    for name, file in sorted(files.items(), reverse=True):
        if not file.link:
            (root / name).chmod(file.mode | (0o700 if file.content is None else 0))
        os.utime(root / name, (OLD + 5, OLD + file.time), follow_symlinks=False)
    root.chmod(root_mode)


def copied(store: Store, where: Path, files: Files, root_mode: int, step: CopyNode, *, staged: bool) -> tuple[str, str]:
    """The diff ID that a COPY of these files makes, and the key of its content. With `staged` they come from a stage:
    what a context holds belongs to root."""
    write_tree(where, files, root_mode)
    owners = {name: file.owner for name, file in files.items()} if staged else {}
    made = Environment(store, Contexts({"": partial(LocalTree, str(where), None, owners=owners)}), print, epoch=OLD)
    roots: dict[int, tuple[str, ...]] = {}
    if staged:
        roots[1] = (run_copy(made, node("/", to="/s/", link=True)).diff_id,)
        step = msgspec.structs.replace(
            step, sources=tuple(msgspec.structs.replace(s, tree=FromNode(1), path="/s/") for s in step.sources)
        )
    trace = Trace("0", str(where))
    done = copy(made, msgspec.structs.replace(step, ignore_cache=True), (), roots, trace)
    return done.diff_id, trace.content


def changed(files: Files, what: str, name: str) -> Files:
    file = files[name]
    if what == "remove":
        return {other: kept for other, kept in files.items() if other != name and not other.startswith(f"{name}/")}
    if what == "content" and file.content is not None and not file.link:
        file = msgspec.structs.replace(file, content=file.content + "+")
    if what == "mode" and not file.link:
        file = msgspec.structs.replace(file, mode=file.mode ^ 0o070)
    if what == "owner":
        file = msgspec.structs.replace(file, owner=(file.owner[0] + 1, file.owner[1]))
    if what == "time":
        file = msgspec.structs.replace(file, time=file.time + 60)
    return {**files, name: file}


@settings(max_examples=60, deadline=None)
@given(TREES, FLAGS, st.sampled_from(["/", "/n/", "/n"]), st.sampled_from(CHANGES), st.booleans(), st.data())
def test_equal_keys_give_equal_layers(
    tmp_path_factory: pytest.TempPathFactory, files: Files, flags: dict[str, Any], to: str, what: str, staged: bool,
    data: Any,
) -> None:  # fmt: skip
    """The layer is compared by its diff ID: files younger than SOURCE_DATE_EPOCH, as all are here, get that time."""
    root = tmp_path_factory.mktemp("policy")
    store = Store(str(root / "store"))
    step = node("/", to=to, tree=FromContext(""), **flags)
    name = data.draw(st.sampled_from(sorted(files)))
    before = copied(store, root / "one", files, 0o755, step, staged=staged)
    others = files if what == "root mode" else changed(files, what, name)
    after = copied(store, root / "two", others, 0o711 if what == "root mode" else 0o755, step, staged=staged)
    if before[1] == after[1]:
        assert before[0] == after[0], "the same key, and another layer"
    overridden = what in ("time", "root mode") or (what == "owner" and ("chown" in flags or not staged))
    if what == "mode" and isinstance(flags.get("chmod"), int) and not flags.get("excludes"):
        overridden = True
    if overridden:
        assert before[1] == after[1], "what does not reach the layer must not invalidate it"
        assert before[0] == after[0]


def test_a_mode_that_chmod_builds_on_counts(tmp_path: Path, store: Store) -> None:
    step = node("/", to="/n/", chmod="u+x")
    one = copied(store, tmp_path / "one", {"a": File(mode=0o644)}, 0o755, step, staged=False)
    two = copied(store, tmp_path / "two", {"a": File(mode=0o600)}, 0o755, step, staged=False)
    assert one[0] != two[0]
    assert one[1] != two[1]


def test_modes_of_directories_on_the_way_to_what_is_taken_count_even_with_chmod(tmp_path: Path, store: Store) -> None:
    """A directory that is only there for what is below it gives its own mode to one that the parent has."""
    parent_files, _ = environment(store, None)
    assert parent_files.epoch == OLD
    step = node("/", to="/", chmod=0o755, excludes=("d", "!d/a"))
    one = copied(store, tmp_path / "one", {"d": File(None, 0o755), "d/a": File()}, 0o755, step, staged=False)
    two = copied(store, tmp_path / "two", {"d": File(None, 0o700), "d/a": File()}, 0o755, step, staged=False)
    assert one[1] != two[1]


def test_a_hit_elsewhere_needs_the_times_of_a_stage(tmp_path: Path, store: Store) -> None:
    """At the same place of the same Dockerfile a stage that ran again and made the same keeps what comes after it;
    what another Dockerfile's stage made is another's."""
    made, _ = environment(store, None)
    made.epoch = None
    layers = []
    for time in (1_000_000, 2_000_000):
        where = tmp_path / str(time)
        write_tree(where, {"a": File(time=time - OLD)}, 0o755)
        source = Environment(store, Contexts({"": partial(LocalTree, str(where))}), print)
        layers.append((run_copy(source, node("/", to="/", link=True, excludes=(str(time),))).diff_id,))
    assert layers[0] != layers[1]
    step = node("a", to="/x", tree=FromNode(1))
    first = copy(made, step, (), {1: layers[0]}, Trace("0", "here"))
    assert copy(made, step, (), {1: layers[1]}, Trace("0", "here")) == msgspec.structs.replace(first, cached=True)
    other = copy(made, step, (), {1: layers[1]}, Trace("0", "elsewhere"))
    assert not other.cached
    assert entries(store, other.diff_id, times=True) == {"x": "file 644 0:0  @2000000"}
