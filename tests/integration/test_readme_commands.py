"""Each command in a block of the README is run: here, in one project, or by the test that is named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import needs_sandbox
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.test_readme import commands_in_blocks

PROJECT = Path(__file__).parents[2]
DOCKERFILE = """\
FROM scratch AS base
COPY busybox /bin/sh
COPY busybox /bin/cat

FROM base AS build
WORKDIR /app
RUN echo made > made
COPY src src
RUN cat src/a > all

FROM base AS compile
RUN --mount=type=cache,id=npm,target=/npm echo one > /npm/one
RUN echo two > /two

FROM build
COPY --from=compile /two /two
COPY app.conf /etc/
CMD ["cat", "/app/made"]
"""
FAILING = "RUN echo configured > config.log; exit 3\n"

HERE: list[tuple[str, int]] = [
    ("builder build -t app:1 --max-size 300MB --max-layer 100MB --max-waste 5% .", 0),
    ("builder layers -n 2 app:1", 0),
    ("builder diff app:1@1 app:1@2", 0),
    ("builder context ls --sizes -n 3", 0),
    ("builder context why node_modules/x.js keep.log app.conf", 0),
    ('builder explain "build 4"', 0),
    ("builder plan .", 0),
    ("builder builds -n 3", 0),
    ('builder builds logs -1 "compile 2/2"', 0),
    ("builder builds report 256c -o build.html", 0),
    ("builder graph --format mermaid .", 0),
    ("builder build -t x --cache-to type=local,dest=cache,mode=max,mounts=npm .", 0),
    ("builder --root /tmp/another build -t x --cache-from type=local,src=cache .", 0),
    ("builder pin --dry-run", 0),
    ("builder build --offline .", 0),
    ("builder run app:1", 0),
    ("builder push localhost:5000/team/app:1 localhost:5000/other/app", 0),
    ("builder pull localhost:5000/team/app:1", 0),
    ("builder doctor", 0),
    ("builder fsck -n", 0),
    (f"cat >> Dockerfile <<'EOF'\n{FAILING}EOF", 0),
    ("builder build --on-error=keep .", 1),
    ("builder debug --diff", 0),
    ("builder debug --rerun", 3),
    ("builder debug -- cat config.log", 0),
]
ELSEWHERE = {
    "builder build -t tour:1 .": "test_readme.py::test_the_tour",
    "builder images": "test_readme.py::test_the_tour",
    "builder run tour:1": "test_readme.py::test_the_tour",
    "builder run -it --entrypoint sh app:1": "cli/test_run.py",
    "builder shell app:1": "cli/test_shell.py",
    "builder build --on-error=shell .": "cli/test_debug.py",
    "builder debug": "cli/test_debug.py",
    "builder build --break :7 .": "cli/test_debug.py",
    'builder login -u "$USER_NAME" --password-stdin registry.example.com': "cli/test_login.py",
    'builder login -u "$CI_REGISTRY_USER" --password-stdin "$CI_REGISTRY"': "cli/test_login.py",
    "builder build -t registry.example.com/team/app:$GITHUB_SHA --push": "integration/test_external_cache.py",
    'builder build -t "$CI_REGISTRY_IMAGE:$CI_COMMIT_SHA" --push': "integration/test_external_cache.py",
    "builder --root /store build -t registry.example.com/team/app:1 --push --isolation chroot /src":
        "sandbox/test_chroot.py",
}  # fmt: skip


def plain(line: str) -> str:
    """Without comments and redirections, with single spaces."""
    return " ".join(re.sub(r" #.*$| 2>&1.*$", "", line).split())


def test_every_command_is_run_somewhere() -> None:
    here = {line for line, _ in HERE}
    for line in map(plain, commands_in_blocks()):
        known = line in here or any(line == other or line.startswith(f"{other} --") for other in ELSEWHERE)
        assert known, f"nothing runs: {line}"
    for place in ELSEWHERE.values():
        assert (PROJECT / "tests" / place.partition("::")[0]).is_file(), place


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with docker_registry(tmp_path / "registry") as host:
        yield host


@needs_sandbox
@needs_docker_registry
def test_the_commands(tmp_path: Path, registry: str) -> None:
    project = tmp_path / "project"
    for name, text in {
        "src/a": "a",
        "src/b": "b",
        "node_modules/x.js": "",
        "keep.log": "",
        "app.conf": "x=y\n",
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    (project / "busybox").write_bytes(Path("/usr/bin/busybox").read_bytes())
    (project / "busybox").chmod(0o755)
    (project / "Dockerfile").write_text(DOCKERFILE)
    (project / ".dockerignore").write_text("node_modules\n*.log\n!keep.log\ncache\nbuild.html\n")
    program = tmp_path / "bin/builder"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m builder "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "BUILDER_ROOT": str(tmp_path / "store"),
        "BUILDER_CONFIG": os.devnull,
    }

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=project, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    for line, status in HERE:
        line = line.replace("localhost:5000", registry).replace("/tmp/another", str(tmp_path / "another"))
        if " push " in line:
            for name in ("team/app:1", "other/app"):
                assert run(f"builder tag app:1 {registry}/{name}").returncode == 0
        if "256c" in line:
            line = line.replace("256c", run("builder builds -q -n 1").stdout.strip()[:6])
        done = run(line)
        assert done.returncode == status, f"{line}\n{done.stdout}{done.stderr}"
        assert "internal error" not in done.stderr
    assert "<svg" in (project / "build.html").read_text()
