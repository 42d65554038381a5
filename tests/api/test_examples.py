"""The examples of the documentation: those of `import builder`, and the pytest plugin in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.builds import PROJECT, busybox_context, context, needs_sandbox

SCRIPT = """
import builder

result = builder.build("path", tags=["app:1"], build_args={"VERSION": "2"}, on_event=print)
print(result.digest, [step.name for step in result.steps if step.outcome == "ran"])
print(result.image.run(["cat", "/version"]).stdout)
for image in builder.images():
    print(image.tags, image.size)
"""

TESTS = """
import pytest


def test_version(builder_image):
    image = builder_image("path", build_args={"VERSION": "3"})
    assert image.run(["cat", "/version"]).stdout == "3\\n"


@pytest.fixture
def image(builder_image):
    return builder_image("path", build_args={"VERSION": "3"})


def test_it_is_built_once(image, builder_image):
    assert image is builder_image("path", build_args={"VERSION": "3"})
    assert image is not builder_image("path")


def test_broken(builder_image):
    builder_image("path", target="nowhere")
"""


def environ(top: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(top),
        "PYTHONPATH": str(PROJECT),
        "BUILDER_ROOT": str(top / "store"),
        "BUILDER_CONFIG": os.devnull,
    }


def run_pytest(top: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "builder.pytest_plugin", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=top, env=environ(top), capture_output=True, text=True, timeout=100)
    return done.stdout + done.stderr


@needs_sandbox
def test_a_script(tmp_path: Path) -> None:
    busybox_context(tmp_path / "path", "ARG VERSION=1\nRUN echo $VERSION > /version\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environ(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    *events, made, version, empty, listed = done.stdout.splitlines()
    assert any(line.startswith("StepDone(") for line in events)
    assert made.startswith("sha256:")
    assert made.endswith("['[base 1/2] COPY base/ /', '[base 2/2] RUN echo $VERSION > /version']")
    assert (version, empty) == ("2", "")
    assert listed.startswith("('app:1',) ")


@needs_sandbox
def test_the_pytest_plugin(tmp_path: Path) -> None:
    busybox_context(tmp_path / "path", "ARG VERSION=1\nRUN echo $VERSION > /version\n")
    (tmp_path / "test_image.py").write_text(TESTS)
    shown = run_pytest(tmp_path, "-q", "-p", "no:xdist")
    assert "1 failed, 2 passed" in shown
    assert "error: target stage 'nowhere' was not found" in shown
    assert "Traceback" not in shown
    assert "pytest_plugin.py" not in shown
    assert (tmp_path / "store").exists()


def test_where_the_plugin_keeps_images(tmp_path: Path) -> None:
    context(tmp_path / "path", "FROM scratch\nLABEL a=b\n")
    (tmp_path / "test_image.py").write_text("def test_it(builder_image):\n    assert builder_image('path').labels\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nbuilder_root = images\n")
    assert "1 passed" in run_pytest(tmp_path, "-q")
    assert (tmp_path / "images/index.json").exists()
    assert "1 passed" in run_pytest(tmp_path, "-q", "--builder-root", "others")
    assert (tmp_path / "others/index.json").exists()
    assert not (tmp_path / "store").exists()


MEMO = """
import io
import os


def text(one):
    return io.BytesIO(f"FROM scratch\\nLABEL one={one}\\n".encode())


def test_a_stream(builder_image):
    assert [builder_image(text(one)).labels["one"] for one in "ab"] == ["a", "b"]
    stream = text("c")
    assert builder_image(stream).labels == {"one": "c"}
    stream.seek(0)
    stream.truncate()
    stream.write(text("d").read())
    stream.seek(0)
    assert builder_image(stream).labels == {"one": "d"}


def test_another_directory(builder_image, monkeypatch):
    found = []
    for name in ("one", "two"):
        monkeypatch.chdir(os.path.join(os.path.dirname(__file__), name))
        found.append(builder_image("../path", file="Dockerfile").labels["directory"])
    assert found == ["one", "two"]


def test_another_environment(builder_image, monkeypatch):
    first = builder_image("path")
    assert builder_image("path") is first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    assert builder_image("path") is not first
    assert builder_image("path").created.timestamp() == 7
"""


def test_what_the_plugin_takes_for_the_same_build(tmp_path: Path) -> None:
    context(tmp_path / "path", "FROM scratch\nLABEL a=b\n")
    for name in ("one", "two"):
        context(tmp_path / name, f"FROM scratch\nLABEL directory={name}\n")
    (tmp_path / "test_image.py").write_text(MEMO)
    shown = run_pytest(tmp_path, "-q", "-p", "no:xdist")
    assert "3 passed" in shown, shown


def test_the_plugin_is_announced() -> None:
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"builder.pytest_plugin": "builder.pytest_plugin"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys, builder.pytest_plugin; print('builder.api' in sys.modules)"],
        env=environ(PROJECT),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
