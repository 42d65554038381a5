"""Plans: the tables of testdata/plan, one file a subject. See `_check` for what a case may state."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from builder.dockerfile.parser import parse
from builder.errors import BuilderError
from builder.plan.locate import Locator
from builder.plan.planner import plan
from builder.plan.steps import Missing
from tests.plan.support import HOST, config, describe, history, make_plan, options

FOLDER = Path(__file__).parents[2] / "testdata" / "plan"
CASES: dict[str, dict[str, Any]] = {
    f"{path.stem}/{case['name']}": case
    for path in sorted(FOLDER.glob("*.toml"))
    for case in tomllib.loads(path.read_text(encoding="utf-8"))["case"]
}


@pytest.mark.parametrize("name", CASES)
def test_table(name: str) -> None:
    case = CASES[name]
    if "error" not in case:
        _check(case)
        return
    with pytest.raises(BuilderError) as caught:
        make_plan(case)
    error = caught.value
    assert case["error"] in error.cause
    assert error.place == case.get("place")
    if error.place:
        number = int(error.place.rpartition(":")[2])
        assert any(line.startswith(f"{number:4d} | >>>") for line in error.details)
    if "remedy" in case:
        assert case["remedy"] in (error.remedy or "")


def _check(case: dict[str, Any]) -> None:
    """A case may state `nodes`, `history` and `config` of the first image (of `config` the keys named, "" where one
    one must be missing), `run` the last command, `asked` the images that were needed, `used` the build arguments that
    something consumed, `expected.images` the platforms."""
    planned, asked = make_plan(case)
    if "nodes" in case:
        assert describe(planned) == case["nodes"]
    if "run" in case:  # the last command only
        assert [line for line in describe(planned) if " run(" in line][-1].partition(") ")[2] == case["run"]
    if "history" in case:
        assert history(planned) == case["history"]
    found = config(planned)
    for key, value in case.get("config", {}).items():
        assert found.get(key, "") == value, key
    if "asked" in case:
        assert asked == case["asked"]
    if "used" in case:
        assert sorted(planned.used_args) == case["used"]
    if "images" in case.get("expected", {}):
        assert [str(image.platform) for image in planned.images] == case["expected"]["images"]
    for number, node in enumerate(planned.nodes):
        assert all(need < number for need in node.needs())


class _Watch:
    """Notes what a function asks of the system; an audit hook can't be taken away again."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.on and event.partition(".")[0] in ("open", "os", "socket", "subprocess", "shutil", "sqlite3", "import"):
            self.seen.append(f"{event} {arguments!r}")


def test_planning_does_no_input_or_output() -> None:
    """All tables are planned once, so that everything is loaded, and then once more while somebody watches."""
    watch = _Watch()
    prepared = []
    for case in CASES.values():
        if "error" not in case and "images" not in case:
            make_plan(case)
            prepared.append((parse(case["dockerfile"]), options(case), Locator("Dockerfile", case["dockerfile"])))
    watch.on = True
    try:
        for dockerfile, chosen, locate in prepared:
            plan(dockerfile, chosen, {}, locate)
    finally:
        watch.on = False
    assert watch.seen == []
    assert len(prepared) > 40


def test_what_is_missing_is_asked_for_at_once() -> None:
    text = (
        "FROM one AS a\nFROM two AS b\nFROM three\nCOPY --from=a / /\nCOPY --from=four / /\n"
        "FROM unused\nFROM two\nCOPY --from=2 / /"
    )
    missing = plan(parse(text), options({}), {}, Locator("Dockerfile", text))
    assert isinstance(missing, Missing)
    assert sorted(key.reference for key in missing.images) == [
        f"docker.io/library/{name}:latest" for name in ("four", "one", "three", "two")
    ]
    assert {key.platform for key in missing.images} == {HOST}


def test_labels_of_nodes_count_the_steps_of_their_stage() -> None:
    text = "FROM scratch AS build\nCOPY a /\nRUN x \\\n  y\nFROM scratch\nCOPY --from=build /a /b"
    planned, _ = make_plan({"dockerfile": text})
    assert [node.label for node in planned.nodes] == [
        "FROM scratch", "[build 1/2] COPY a /", "[build 2/2] RUN x y", "[stage-1 1/1] COPY --from=build /a /b",
    ]  # fmt: skip


def test_equal_bases_are_one_node() -> None:
    text = "FROM busybox AS a\nRUN a\nFROM busybox AS b\nRUN b\nFROM scratch\nCOPY --from=a / /\nCOPY --from=b / /"
    planned, asked = make_plan({"dockerfile": text})
    assert asked == ["busybox"]
    assert sum(" image " in line for line in describe(planned)) == 1
