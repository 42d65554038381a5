"""Comparing recipes: equal ones differ in nothing, and whatever differs is named."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.progress import Reason
from builder.solver.explain_earlier import Earlier, EarlierSteps
from builder.solver.explain_files import compare_files, summary
from builder.solver.explain_match import match
from builder.solver.explain_recipes import Difference, compare
from builder.solver.keys import masked
from builder.store.builds import Build, BuiltStep

STEP = BuiltStep(step="1", kind="run", name="[s 1/1] RUN x", stage="s", instruction="RUN x", outcome="ran")
NAMES, TEXTS = st.sampled_from(["A", "B", "C"]), st.sampled_from(["", "1", "two words"])
VALUES = st.one_of(TEXTS, TEXTS.map(masked))
MOUNTS = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("bind"), "target": st.sampled_from(["/a", "/b"]), "writable": st.booleans(),
         "source": st.just("/"), "content": TEXTS}
    ),
    st.fixed_dictionaries({"type": st.just("tmpfs"), "target": st.sampled_from(["/a", "/b"]), "size": st.just(0)}),
)  # fmt: skip
RUNS = st.fixed_dictionaries({
    "step": st.just("run"),
    "platform": st.just("linux/amd64"),
    "parent": st.lists(st.sampled_from(["l1", "l2"]), max_size=2),
    "argv": st.lists(TEXTS, min_size=1, max_size=3),
    "env": st.dictionaries(NAMES, VALUES, max_size=2).map(lambda env: [list(pair) for pair in env.items()]),
    "user": st.sampled_from(["", "root", "app"]),
    "workdir": st.sampled_from(["/", "/w"]),
    "network": st.sampled_from(["default", "none"]),
    "security": st.just("sandbox"),
    "script": st.sampled_from([None, ["EOF", "x"], ["EOF", "y"]]),
    "mounts": st.lists(MOUNTS, max_size=2, unique_by=lambda mount: mount["target"]),
    "hosts": st.lists(st.tuples(TEXTS, TEXTS).map(list), max_size=1),
    "hostname": TEXTS,
    "shm_size": st.integers(0, 1),
    "ulimits": st.lists(st.just(["nofile", 1, 2]), max_size=1),
    "epoch": st.sampled_from([None, 0, 1]),
})  # fmt: skip
FACTS = st.dictionaries(
    st.sampled_from(["", "d", "d/e"]), st.tuples(st.sampled_from([None, 1, 2]), st.integers(0, 1)), max_size=2
).map(lambda facts: [[path, kind, mode, 0, 0, ""] for path, (kind, mode) in sorted(facts.items())])
FILES = st.dictionaries(
    st.sampled_from(["", "a", "d/b"]), st.tuples(st.sampled_from([None, 0o644, 0o755]), TEXTS), max_size=2
).map(lambda files: [{"name": "n", "unpack": False, "items": [
    [path, 0, mode, 0, 0, digest] for path, (mode, digest) in sorted(files.items())
]}])  # fmt: skip
COPIES = st.fixed_dictionaries({
    "step": st.just("copy"),
    "sources": st.lists(FILES, min_size=1, max_size=1),
    "destination": st.sampled_from(["/", "/d/"]),
    "chown": st.sampled_from([None, "app"]),
    "chmod": st.sampled_from([None, 0o600, "u+x"]),
    "link": st.booleans(),
    "excludes": st.lists(TEXTS, max_size=1),
    "epoch": st.sampled_from([None, 0]),
    "owner": st.sampled_from([None, [1, 2]]),
    "facts": FACTS,
})  # fmt: skip


def below(position: int, old: Sequence[str], new: Sequence[str]) -> Difference:
    return Difference(kind="step", text="below")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    return compare(STEP, STEP, old, new, below, lambda source: None)


@given(RUNS, RUNS, st.data())
def test_commands_differ_in_something_or_are_equal(old: dict[str, Any], new: dict[str, Any], data: Any) -> None:
    assert differences(old, copy.deepcopy(old)) == []
    field = data.draw(st.sampled_from(sorted(old)))
    for changed in (new, {**old, field: new[field]}):
        found = differences(old, changed)
        assert bool(found) == (old != changed), (old, changed)
        assert all(difference.text for difference in found)


@given(COPIES, COPIES, st.data())
def test_copies_differ_in_something_or_are_equal(old: dict[str, Any], new: dict[str, Any], data: Any) -> None:
    """But for facts that only one of them asked: they follow from the rest."""
    assert differences(old, copy.deepcopy(old)) == []
    field = data.draw(st.sampled_from(sorted(set(old) - {"facts", "owner"})))
    found = differences(old, {**old, field: new[field]})
    assert bool(found) == (old[field] != new[field])
    for difference in differences(old, new):
        assert difference.text


@given(FILES, FILES)
def test_files(old: list[Any], new: list[Any]) -> None:
    found = list(compare_files(old, new, "src"))
    before, after = ({item[0]: item for item in source[0]["items"]} for source in (old, new))
    assert {file.path for file in found} == {
        f"src/{path}" if path else "src" for path in {*before, *after} if before.get(path) != after.get(path)
    }
    if found:
        assert summary(found)


@pytest.mark.parametrize(
    ("written", "name", "relative", "shown"),
    [
        (".", "", "a/b", "a/b"), ("", "", "a", "a"), ("src", "src", "a", "src/a"), ("src/", "src", "a", "src/a"),
        ("a.txt", "a.txt", "", "a.txt"), ("*.txt", "a.txt", "", "a.txt"), ("d/*/", "e", "f", "d/e/f"),
        ("d/*.c", "x.c", "", "d/x.c"), ("build:/out/a", "a", "", "build:/out/a"), ("build:/", "", "a", "build:/a"),
    ],
)  # fmt: skip
def test_paths_are_shown_as_people_write_them(written: str, name: str, relative: str, shown: str) -> None:
    source = [{"name": name, "items": [[relative, 0, 0o644, 0, 0, "1"]]}]
    (found,) = compare_files([{"name": name, "items": []}], source, written)
    assert found.path == shown


def steps(*instructions: str) -> list[BuiltStep]:
    return [
        msgspec.structs.replace(STEP, step=str(n), instruction=text, kind=text.split()[0].lower())
        for n, text in enumerate(instructions)
    ]


@pytest.mark.parametrize(
    ("old", "new", "pairs"),
    [
        (["RUN a", "RUN b"], ["RUN a", "RUN b"], {"0": "RUN a", "1": "RUN b"}),
        (["RUN a", "RUN b"], ["COPY x", "RUN a", "RUN b"], {"1": "RUN a", "2": "RUN b"}),
        (["RUN a", "RUN b"], ["RUN b"], {"0": "RUN b"}),
        (["RUN a", "RUN b"], ["RUN a", "RUN c"], {"0": "RUN a", "1": "RUN b"}),
        (["COPY a", "RUN b"], ["RUN c", "COPY d"], {"0": "RUN b"}),
        (["RUN a", "RUN a"], ["RUN a"], {"0": "RUN a"}),
        ([], ["RUN a"], {}),
    ],
)
def test_which_steps_belong_together(old: list[str], new: list[str], pairs: dict[str, str]) -> None:
    found = match(steps(*old), steps(*new))
    assert {number: step.instruction for number, step in found.items()} == pairs


@given(st.lists(st.sampled_from(["RUN a", "RUN b", "COPY a", "COPY b"]), max_size=6), st.data())
def test_no_old_step_is_used_twice(old: list[str], data: Any) -> None:
    new = data.draw(st.lists(st.sampled_from(["RUN a", "RUN b", "COPY a", "COPY c"]), max_size=6))
    found = match(steps(*old), steps(*new))
    used = [step.step for step in found.values()]
    assert len(used) == len(set(used))
    assert all(steps(*new)[int(number)].kind == step.kind for number, step in found.items())


class Past:
    """Builds at 9, 8, … 1 seconds, of which each even one came to another stage alone; notes which were asked for."""

    def __init__(self) -> None:
        self.read: list[float] = []

    def of(self, project: str) -> Iterator[Build]:
        for at in range(9, 0, -1):
            self.read.append(at)
            step = msgspec.structs.replace(STEP, key="k", stage="s" if at % 2 else "t")
            yield Build(
                build=f"{at:08x}", started=at, seconds=1, outcome="done", project=project, context="", dockerfile="",
                steps=(step,),
            )  # fmt: skip

    def is_complete(self) -> bool:
        return True


@pytest.mark.parametrize(("before", "found", "read"), [(None, 9, [9]), (9, 7, [9, 8, 7]), (2, 1, [*range(9, 0, -1)])])
def test_no_more_builds_are_read_than_are_compared(before: float | None, found: int, read: list[int]) -> None:
    past = Past()
    steps = EarlierSteps(past, "p", lambda: [STEP], before)
    for _ in range(2):  # each of them once
        earlier = steps.find(STEP)
        assert isinstance(earlier, Earlier)
        assert (earlier.build.started, past.read) == (found, read)


def test_all_builds_are_read_before_a_step_is_called_new() -> None:
    past = Past()
    steps = EarlierSteps(past, "p", lambda: [STEP], before=1)
    assert steps.find(STEP) == Reason("first", "first build")
    assert len(past.read) == 9
