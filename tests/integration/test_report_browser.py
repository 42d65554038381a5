"""The page about a build, in a real browser: Chromium without a window (Debian package chromium)."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builder.api.report import render_report
from tests.api.recorded import BUILD, LONG, keep
from tests.api.test_report import Page
from tests.support.archives import archive
from tests.support.images import put_image

CHROMIUM = shutil.which("chromium")
DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
MEASURE = """<script>
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll(".treemap rect, .bar rect")].map((one) => one.getBoundingClientRect());
  parent.postMessage(JSON.stringify({
    width: document.documentElement.clientWidth,
    content: document.documentElement.scrollWidth,
    resources: performance.getEntriesByType("resource").map((one) => one.name),
    background: getComputedStyle(document.body).backgroundColor,
    text: getComputedStyle(document.body).color,
    flat: boxes.filter((box) => box.width < 0.1 || box.height < 1).length,
    boxes: boxes.length,
    scrollable: [...document.querySelectorAll(".scroll, .log")].filter((one) => one.tabIndex !== 0).length,
  }), "*");
});
</script>"""
FRAME = """<!doctype html>
<iframe src="measured.html" width="{width}" height="3000" style="border:0"></iframe><pre></pre>
<script>
addEventListener("message", (event) => {{ document.querySelector("pre").textContent = event.data; }});
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian package chromium)"),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("page")
    root = tmp_path_factory.mktemp("store")
    layers = [
        archive(*((f"lib/{number}.so", {"data": b"1" * 90_000 * number}) for number in range(1, 15))),
        archive(("<script>document.title='owned'</script>", {"data": b"3" * 800_000})),
    ]
    descriptor = put_image(root, "app:1", layers, lines=["RUN apt-get install everything", "COPY . /srv"])
    page = directory / "page.html"
    with (
        closing(keep(root, msgspec.structs.replace(BUILD, digest=descriptor.digest))) as store,
        page.open("wb") as file,
    ):
        render_report(store, store.builds.find(BUILD.build), file)
    return page


def chromium(directory: Path, url: str, *options: str) -> tuple[str, list[str]]:
    """What Chromium prints, and what a page wrote to its console."""
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            f"--user-data-dir={directory}/profile", "--enable-logging=stderr", "--virtual-time-budget=3000",
            "--hide-scrollbars", *options, url,
        ],
        capture_output=True,
        timeout=100,
        check=True,
    )  # fmt: skip
    return done.stdout.decode(), [line for line in done.stderr.decode().splitlines() if "CONSOLE" in line]


def measure(path: Path, width: int, *options: str) -> dict[str, Any]:
    """Sizes and colours, from a copy whose policy lets a script of ours in, in a frame of a given width."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    (path.parent / "measured.html").write_text(text.replace("</head>", f"{MEASURE}</head>"))
    frame = path.parent / "frame.html"
    frame.write_text(FRAME.format(width=width))
    shown, _ = chromium(path.parent, frame.as_uri(), "--dump-dom", "--window-size=1400,3100", *options)
    match = re.search(r"<pre>(.*?)</pre>", shown, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


def test_what_is_shown(path: Path) -> None:
    shown, console = chromium(path.parent, f"{path.as_uri()}#step-2", "--dump-dom")
    assert console == []  # neither an error nor something that the page's policy refused
    page = Page(shown)
    assert page.text("title").startswith("app:1 – build 0123abcd")
    assert not page.all("img")
    assert len(page.all("script")) == 1
    steps = {one["id"]: one for one in page.all("details") if "id" in one}
    assert len(steps) == 5
    assert "open" in steps["step-2"]  # the script ran, and opened what the address names
    assert "open" not in steps["step-3"]
    assert all("hidden" not in button for button in page.all("button"))
    assert "changed" in page.text("span")
    assert LONG.decode() in page.text("pre")
    assert len([one for one in page.all("rect") if one.get("class", "").startswith(("layer", "file"))]) == 17


@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_its_window(path: Path, width: int) -> None:
    found = measure(path, width)
    assert found["width"] == width
    assert found["content"] <= width
    assert found["resources"] == []
    assert (found["flat"], found["scrollable"]) == (0, 0)
    assert found["boxes"] > 20


def test_light_and_dark(path: Path) -> None:
    light, dark = measure(path, 800), measure(path, 800, *DARK)
    assert light["background"] == "rgb(255, 255, 255)"
    assert dark["background"] == "rgb(13, 17, 23)"
    assert dark["text"] == "rgb(240, 246, 252)"


@pytest.mark.parametrize("options", [(), DARK])
def test_a_picture(path: Path, options: tuple[str, ...]) -> None:
    picture = path.parent / f"picture-{len(options)}.png"
    chromium(path.parent, path.as_uri(), f"--screenshot={picture}", "--window-size=1000,1600", *options)
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1000, 1600)
    assert len(data) > 50_000  # an empty page has a tenth
