"""Cache keys: equal where the layers are, apart where they are not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from builder.plan.steps import (
    BindMount,
    CacheMount,
    CopyNode,
    FromContext,
    FromNode,
    RunNode,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from builder.solver.cache import Made
from builder.solver.keys import encode, key_of, run_recipe
from builder.store.store import Store
from tests.solver.support import HOST, OLD, base_layer, entries, environment, node, run_copy, write

# --- copies


def layer_and_key(store: Store, context: Path, step: CopyNode, parent: tuple[str, ...] = ()) -> tuple[Any, str]:
    """What a step's layer holds, without times, and the key under which it is remembered by content and facts."""
    made, _ = environment(store, context)
    keys: list[str] = []
    remember = made.cache.remember_encoded

    def spy(key: str, data: bytes, made: Made, lineage: str, *, content: str = "") -> None:
        recipe = json.loads(data)
        assert key == key_of(recipe)
        if "facts" in recipe and "times" not in recipe:
            keys.append(key)
        remember(key, data, made, lineage, content=content)

    made.cache.remember_encoded = spy  # type: ignore[method-assign]
    done = run_copy(made, msgspec.structs.replace(step, ignore_cache=True), parent)
    assert len(keys) == 1
    return entries(store, done.diff_id), keys[0]


CONTENTS = st.sampled_from(["", "x", "y"])
FILES = st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/b", "d/e/f"]), CONTENTS, min_size=1, max_size=4)
FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "chown": st.sampled_from(["1:2", "3", "app"]),
        "chmod": st.sampled_from([0o600, "u+x"]),
        "excludes": st.sampled_from([("b",), ("d",), ("none",)]),
        "link": st.booleans(),
    },
)
CHANGES = [
    "content",
    "mode",
    "time",
    "name",
    "link",
    "hard link",
    "remove",
    "directory",
    "owner",
    "destination",
    "nothing",
]


def change(context: Path, step: CopyNode, what: str, name: str) -> CopyNode:
    """Change one thing about a context or a step."""
    path = context / name
    if what == "content":
        path.write_text(path.read_text() + "+")
    elif what == "mode":
        path.chmod(0o640)
    elif what == "time":
        os.utime(path, (OLD - 9, OLD - 9))
    elif what == "name":
        path.rename(path.parent / "renamed")
    elif what == "link":
        (path.parent / "new").symlink_to("a")
    elif what == "hard link":
        os.link(path, path.parent / "new")
    elif what == "remove":
        path.unlink()
    elif what == "directory":
        (path.parent / "new").mkdir()
    elif what == "owner":
        return msgspec.structs.replace(step, chown="7:8")
    elif what == "destination":
        return msgspec.structs.replace(step, destination="/m/")
    return step


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=FILES, flags=FLAGS, to=st.sampled_from(["/", "/n/", "/n"]), what=st.sampled_from(CHANGES), data=st.data())
def test_keys_differ_where_layers_do(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, str],
    flags: dict[str, Any],
    to: str,
    what: str,
    data: Any,
) -> None:
    root = tmp_path_factory.mktemp("keys")
    store = Store(str(root / "store"))
    context = write(root / "context", dict(files))
    parent = (base_layer(store, write(root / "parent", {"etc/passwd": "app:x:5:6:::\n", "n/old": ""})),)
    step = node("/", to=to, **flags)
    before = layer_and_key(store, context, step, parent)
    step = change(context, step, what, data.draw(st.sampled_from(sorted(files))))
    after = layer_and_key(store, context, step, parent)
    if after[0] != before[0]:
        assert after[1] != before[1]
    if what in ("time", "nothing"):
        assert after[0] == before[0]
        assert after[1] == before[1]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([
    {"n/f": "file"}, {"n": None}, {"n": "a file"}, {"n": "-> m"}, {"n": "-> m", "m": None}, {"other": "x"}, {},
    {"etc/passwd": "app:x:5:6:::\n"}, {"etc/passwd": "app:x:9:9:::\n"},
]), st.sampled_from([None, "app"]), st.booleans())  # fmt: skip
def test_a_hit_by_facts_is_what_would_have_been_made(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, Any], chown: str | None, link: bool
) -> None:
    """Whatever another parent makes of a step, a cached result is the same."""
    root = tmp_path_factory.mktemp("facts")
    store = Store(str(root / "store"))
    context = write(root / "context", {"f": "f"})
    one = (base_layer(store, write(root / "one", {"n": None, "etc/passwd": "app:x:5:6:::\n"})),)
    two = (base_layer(store, write(root / "two", files)),)
    step = node("f", to="/n/f", chown=chown, link=link)
    made, _ = environment(store, context)
    run_copy(made, step, one)
    try:
        cached = run_copy(made, step, two)
        fresh = run_copy(made, msgspec.structs.replace(step, ignore_cache=True), two)
    except Exception as error:
        assume("not a directory" not in str(error))
        raise
    assert entries(store, cached.diff_id) == entries(store, fresh.diff_id)


def test_a_parent_that_differs_only_in_what_was_not_asked(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"f": "f"})
    made, _ = environment(store, context)
    one = (base_layer(store, write(tmp_path / "one", {"n/old": "1", "bin/x": "1"})),)
    two = (base_layer(store, write(tmp_path / "two", {"n/old": "22", "lib/y": "2"})),)
    other = (base_layer(store, write(tmp_path / "other", {"n": "-> m", "m/old": "1"})),)
    first = run_copy(made, node("f", to="/n/"), one)
    second = run_copy(made, node("f", to="/n/"), two)
    assert (second.cached, second.diff_id) == (True, first.diff_id)
    assert not run_copy(made, node("f", to="/n/"), other).cached


def test_an_owner_by_name_depends_on_the_parent_even_with_link(tmp_path: Path, store: Store) -> None:
    context = write(tmp_path / "context", {"f": "f"})
    made, _ = environment(store, context)
    step = node("f", to="/", chown="app", link=True)
    for uid in (5, 6):
        parent = (base_layer(store, write(tmp_path / str(uid), {"etc/passwd": f"app:x:{uid}:{uid}:::\n"})),)
        for _ in range(2):
            assert entries(store, run_copy(made, step, parent).diff_id) == {"f": f"file 644 {uid}:{uid} f"}
    numbered = node("f", to="/x", chown="7:8", link=True)
    one = run_copy(made, numbered, parent)
    assert run_copy(made, numbered, ()) == msgspec.structs.replace(one, cached=True)


# --- commands

RUN = RunNode(
    label="RUN", stage="s", platform=HOST, parent=0, argv=("/bin/sh", "-c", "x"), env=(("A", "1"), ("B", "2")),
    mounts=(
        BindMount(target="/b", tree=FromNode(0)), BindMount(target="/c", tree=FromContext("")),
        CacheMount(target="/k", cache="k"), TmpfsMount(target="/t"), SecretMount(secret="s", target="/s"),
        SshMount(agent="default", target=None),
    ),
)  # fmt: skip
OTHERS = {
    "argv": msgspec.structs.replace(RUN, argv=("/bin/sh", "-c", "y")),
    "argv cut elsewhere": msgspec.structs.replace(RUN, argv=("/bin/sh", "-c x")),
    "env": msgspec.structs.replace(RUN, env=(("A", "1"), ("B", "3"))),
    "env in another order": msgspec.structs.replace(RUN, env=(("B", "2"), ("A", "1"))),
    "user": msgspec.structs.replace(RUN, user="app"),
    "workdir": msgspec.structs.replace(RUN, workdir="/w"),
    "network": msgspec.structs.replace(RUN, network="none"),
    "security": msgspec.structs.replace(RUN, security="insecure"),
    "script": msgspec.structs.replace(RUN, script=("EOF", "x")),
    "platform": msgspec.structs.replace(RUN, platform=msgspec.structs.replace(HOST, architecture="arm64")),
    "a mount less": msgspec.structs.replace(RUN, mounts=RUN.mounts[1:]),
    "another target": msgspec.structs.replace(RUN, mounts=(BindMount(target="/z", tree=FromNode(0)), *RUN.mounts[1:])),
    "writable": msgspec.structs.replace(
        RUN, mounts=(BindMount(target="/b", tree=FromNode(0), writable=True), *RUN.mounts[1:])
    ),
}
SAME = {
    "label": msgspec.structs.replace(RUN, label="other", stage="other"),
    "proxies": msgspec.structs.replace(RUN, proxies=(("HTTP_PROXY", "x"),)),
    "number": msgspec.structs.replace(RUN, parent=7),
}
PLAIN_CACHE = {"type": "cache", "target": "/k", "cache": "k", "read_only": False}
SEEDED = {**PLAIN_CACHE, "layers": ["l"], "source": "/"}
CACHES = [
    (CacheMount(target="/k", cache="k"), PLAIN_CACHE),
    (CacheMount(target="/k", cache="k", sharing="private", source="/d"), PLAIN_CACHE),
    (CacheMount(target="/k", cache="k", mode=0o700), {**PLAIN_CACHE, "mode": 0o700, "uid": None, "gid": None}),
    (CacheMount(target="/k", cache="k", uid=0), {**PLAIN_CACHE, "mode": None, "uid": 0, "gid": None}),
    (CacheMount(target="/k", cache="k", tree=FromNode(0)), SEEDED),
    (CacheMount(target="/k", cache="k", tree=FromNode(0), source="/d"), {**SEEDED, "source": "/d"}),
    (CacheMount(target="/k", cache="k", tree=FromContext("")), {**PLAIN_CACHE, "content": "c", "source": "/"}),
]


def run_key(step: RunNode, parent: tuple[str, ...] = ("a", "b"), content: str = "c", **settings: Any) -> str:
    return key_of(run_recipe(step, parent, {0: ("l",)}, {":/": content}, settings))


@pytest.mark.parametrize("what", OTHERS)
def test_what_a_command_sees_is_in_its_key(what: str) -> None:
    assert run_key(OTHERS[what]) != run_key(RUN)


@pytest.mark.parametrize("what", SAME)
def test_what_a_command_does_not_see_is_not(what: str) -> None:
    assert run_key(SAME[what]) == run_key(RUN)


@pytest.mark.parametrize(("mount", "recipe"), CACHES)
def test_what_a_cache_starts_from_is_in_the_key(mount: CacheMount, recipe: dict[str, Any]) -> None:
    """The keys of those that start empty are those of earlier versions."""
    made = run_recipe(msgspec.structs.replace(RUN, mounts=(mount,)), (), {0: ("l",)}, {":/": "c"}, {})
    assert made["mounts"] == [recipe]


def test_parents_contents_and_settings_are_in_the_key() -> None:
    assert run_key(RUN, ("a", "c")) != run_key(RUN)
    assert run_key(RUN, ("ab",)) != run_key(RUN)
    assert run_key(RUN, content="d") != run_key(RUN)
    assert run_key(RUN, epoch=1) != run_key(RUN, epoch=2)


# --- the encoding

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(st.characters(), max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3),
    st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3),
)
def test_equal_recipes_and_no_others_have_equal_keys(one: dict[str, Any], two: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert (key_of(one) == key_of(two)) is same
    assert key_of(dict(reversed(one.items()))) == key_of(one)


def test_names_that_are_not_utf8_are_told_apart() -> None:
    keys = {key_of({"a": text}) for text in ("\udcff", "\\udcff", "\udcfe", "\\xff", "ÿ")}
    assert len(keys) == 5
    assert json.loads(encode({"a": ["\udcff", "b"]})) == {"a": [{"bytes": "edb3bf"}, "b"]}
