"""The page about a build: that all is on it, and that nothing on it is more than text."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.api.report import render_report
from builder.api.report.page import plain
from builder.api.report.timeline import timeline
from builder.api.report.treemap import Rectangle, treemap
from builder.store.builds import Build, BuiltStep
from tests.api.recorded import BUILD, HOSTILE, LONG, STARTED, keep, step
from tests.support.archives import archive
from tests.support.images import put_image


class Page(HTMLParser):
    """A page's elements, with their attributes and the text in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = [""]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "link"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1] == tag, f"</{tag}> closes {self._open[-1]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1], data))

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key.strip("_")) == value for key, value in wanted.items())
        ]

    def text(self, tag: str = "") -> str:
        return "".join(data for name, data in self.texts if not tag or name == tag)


def render(root: Path, build: Build = BUILD) -> str:
    out = io.BytesIO()
    with closing(keep(root, build)) as store:
        render_report(store, build, out)
    return out.getvalue().decode()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_nothing_that_was_recorded_becomes_markup(source: str, page: Page) -> None:
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert source.count("<script") == 1
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("href", "src"):
            assert attributes.get(name, "#").startswith("#") or attributes[name] == "data:,"
    assert "49" not in page.text("title")  # what looks like a template is none
    assert page.text("pre").count(HOSTILE) == 1
    assert page.text("code").count(HOSTILE) >= 5
    assert page.text().count(HOSTILE) >= 12


def test_only_its_own_style_and_script_may_run(page: Page) -> None:
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        digest = hashlib.sha256(page.text(tag).encode()).digest()
        assert directives[name] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert "http:" not in page.text("style") + page.text("script")
    assert "url(" not in page.text("style")


def links_of(page: Page) -> set[str]:
    """The links of a page, all of which lead somewhere."""
    anchors = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert links - {f"#{anchor}" for anchor in anchors} == set()
    return links


def test_every_link_leads_somewhere(page: Page) -> None:
    assert {"#step-2", "#line-2", "#warnings"} <= links_of(page)


def test_contexts_that_took_long_are_named_and_no_steps_to_link_to(tmp_path: Path) -> None:
    contexts = [
        BuiltStep(
            step=f"{number}", kind="context", name="", stage="app", instruction=f"FROM {name}", outcome="ran",
            started=STARTED, seconds=seconds,
        )
        for number, name, seconds in ((7, "slow", 2.0), (8, "free", 1.0))
    ]  # fmt: skip
    copy = step(9, "ran", 2.0, 0.5, 7, 8, line=1)
    page = Page(render(tmp_path, msgspec.structs.replace(BUILD, steps=(*contexts, copy))))
    assert "#step-9" in links_of(page)
    assert {"[app] FROM slow", "[app] FROM free"} <= {text.strip() for tag, text in page.texts if tag == "li"}


def test_steps(page: Page) -> None:
    outcomes = {one["id"]: one["class"] for one in page.all("details") if "id" in one}
    assert outcomes == {
        "step-1": "step cached", "step-2": "step ran", "step-3": "step ran", "step-4": "step failed",
        "left-out-5": "step not-needed",
    }  # fmt: skip
    assert "open" in page.all("details", id="step-4")[0]
    assert f"because {HOSTILE} changed" in page.text("span")
    assert f"it broke {HOSTILE}" in page.text("dd")


def test_logs_are_whole(page: Page) -> None:
    log = page.text("pre")
    assert LONG.decode() in log
    assert "one\ngreen done\n10%\n100%\n\\xff�</pre>" in log


def test_times(page: Page) -> None:
    bars = page.all("svg", class_="bar")
    assert [bar["aria-label"].partition(":")[0] for bar in bars][-1] == "exporting the image"
    assert sum("on the critical path" in bar["aria-label"] for bar in bars) == 3
    assert len(page.all("rect", class_="queued")) == 1
    ran = next(one for one in page.all("rect", class_="ran") if one["width"] == "75.0%")
    assert ran["x"] == "5.0%"
    assert "waited 0.15s for a free job" in "".join(bar["aria-label"] for bar in bars)


def test_the_dockerfile_is_marked(page: Page) -> None:
    lines = {row["id"]: row["class"].split() for row in page.all("tr")}
    assert len(lines) == 6
    assert lines["line-2"] == ["warned", "ran"]
    assert lines["line-4"] == ["failed"]
    assert "Rule: " in page.text("p")


def test_lines_are_numbered_as_the_parser_does(tmp_path: Path) -> None:
    """A form feed, a lone carriage return and Unicode's separators end none."""
    text = "\ufeffFROM x\r\nRUN a\fb\x1cc\x85d\u2028e\rf\r\n\nRUN last\n"
    page = Page(render(tmp_path, msgspec.structs.replace(BUILD, text=text)))
    assert [row["id"] for row in page.all("tr") if row["id"].startswith("line-")] == [f"line-{n}" for n in range(1, 5)]
    assert page.text("code").endswith("FROM xRUN a\ufffdb\ufffdc\ufffdd\ufffde\nfRUN last")


def test_a_build_without_anything(tmp_path: Path) -> None:
    build = Build(
        build="00000000", started=STARTED, seconds=0.0, outcome="failed", project="", context="", dockerfile=""
    )
    text = Page(render(tmp_path, build)).text()
    for part in ("before its stages were known", "before its steps were known", "No step began", "made files"):
        assert part in text


def test_layers(tmp_path: Path) -> None:
    name = "<b>bold</b>"
    layers = [
        archive(("bin/tool", {"data": b"1" * 300_000}), (name, {"data": b"2" * 100_000})),
        archive((name, {"data": b"3" * 50_000}), ("etc/other", {"data": b"4" * 10})),
    ]
    descriptor = put_image(tmp_path, "app:1", layers, lines=[f"RUN {HOSTILE}", "COPY y"])
    page = Page(render(tmp_path, msgspec.structs.replace(BUILD, digest=descriptor.digest)))
    titles = page.text("title")
    for told in (
        "layer 1, 410kB: RUN",
        "layer 2, 61.4kB: COPY y",
        "/bin/tool, 300kB",
        f"/{name}, 100kB",
        f"/{name}, 50kB",
    ):
        assert told in titles
    rectangles = [one for one in page.all("rect") if one.get("class", "").startswith(("layer", "file"))]
    assert len(rectangles) == 8
    assert len([row for row in page.all("tr") if row.get("id", "").startswith("layer-")]) == 2
    assert "100kB are of files that a later layer replaced or removed" in re.sub(r"\s+", " ", page.text("p"))


def test_an_image_that_is_gone(tmp_path: Path) -> None:
    text = Page(render(tmp_path, msgspec.structs.replace(BUILD, digest="sha256:" + "0" * 64))).text()
    assert "The layers cannot be shown: no such image" in text


@given(st.text())
def test_logs_as_text(text: str) -> None:
    shown = plain(text)
    assert all(one.isprintable() or one in "\n\t" for one in shown)
    if text.isprintable():
        assert shown == text


@given(st.lists(st.one_of(st.just(0.0), st.floats(0.5, 1e9)), max_size=40))
def test_a_tree_map_fills_its_rectangle(sizes: list[float]) -> None:
    found = list(treemap(sizes, Rectangle(10, 20, 1000, 400)))
    total = sum(sizes)
    assert {number for number, _ in found} >= {number for number, size in enumerate(sizes) if size > total / 1e9}
    for number, place in found:
        assert place.width * place.height == pytest.approx(1000 * 400 * sizes[number] / total, rel=1e-3, abs=1e-3)
        assert place.x >= 10 - 1e-3
        assert place.x + place.width <= 1010 + 1e-3
        assert place.y >= 20 - 1e-3
        assert place.y + place.height <= 420 + 1e-3
    for one, two in _pairs([place for _, place in found]):
        assert min(one.x + one.width, two.x + two.width) - max(one.x, two.x) < 1e-3 or (
            min(one.y + one.height, two.y + two.height) - max(one.y, two.y) < 1e-3
        )


def _pairs(places: list[Rectangle]) -> Iterator[tuple[Rectangle, Rectangle]]:
    for number, one in enumerate(places):
        for two in places[:number]:
            yield one, two


@given(st.floats(0, 1e6))
def test_a_scale_has_round_marks(seconds: float) -> None:
    build = Build(build="0", started=0.0, seconds=seconds, outcome="done", project="", context="", dockerfile="")
    _, marks = timeline(build, ())
    assert 2 <= len(marks) <= 6
    times = [float(mark.removesuffix("s")) for mark in marks]
    assert times[0] == 0
    assert times[-1] >= seconds - 1e-9
    assert times[-1] <= max(seconds * 2.5, 0.001)
    assert len({mark.strip("0.s")[:1] for mark in marks[1:2]} & set("125")) == 1
