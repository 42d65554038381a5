"""The first image: its programs are what their generator makes, and the README's first command builds and runs it."""

from __future__ import annotations

import os
import platform
import runpy
import subprocess
from pathlib import Path

import pytest

from tests.support.builds import Cli, needs_sandbox

HELLO = Path(__file__).parents[1] / "testdata/hello"
NATIVE = {"x86_64": "hello-amd64", "aarch64": "hello-arm64"}.get(platform.machine(), "")

native = pytest.mark.skipif(not NATIVE, reason=f"there is no hello for {platform.machine()}")


def test_the_programs_are_what_the_generator_makes() -> None:
    programs = runpy.run_path(str(HELLO / "generate.py"))["programs"]()
    assert sorted(programs) == sorted(path.name for path in HELLO.glob("hello-*"))
    for name, data in programs.items():
        assert (HELLO / name).read_bytes() == data
        assert os.access(HELLO / name, os.X_OK)
        assert len(data) < 1000


@native
@pytest.mark.parametrize("arguments", [(), ("one",), ("one", "", "two words")])
def test_the_native_one_runs(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([HELLO / NATIVE, *arguments], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == " ".join([f"Hello from Linux on {platform.machine()}", *arguments]) + "\n"


@native
@needs_sandbox
def test_the_image(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    done = cli.build("-t", "hello", "-o", f"type=local,dest={tmp_path}/out", "-o", "type=image", HELLO)
    assert f"Hello from Linux on {platform.machine()} in the sandbox\n" in done.err
    assert subprocess.check_output([tmp_path / "out/hello", "you"]).endswith(b" you\n")
    assert cli.config("hello")["config"]["Entrypoint"] == ["/hello"]
    assert sorted(cli.files("hello")) == ["hello"]


@native
@needs_sandbox
def test_for_several_platforms(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    output = f"type=local,dest={tmp_path}/out"
    cli.build("--platform", "linux/amd64,linux/arm64", "-o", output, HELLO)
    for name in ("amd64", "arm64"):
        assert (tmp_path / f"out/linux_{name}/hello").read_bytes() == (HELLO / f"hello-{name}").read_bytes()
