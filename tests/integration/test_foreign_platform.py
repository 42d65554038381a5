"""Images for another machine: their commands run through binfmt_misc, or the error says what to install."""

from __future__ import annotations

import json
import os
import platform
import struct
import subprocess
from pathlib import Path

import pytest

from tests.support.builds import Cli, context, needs_sandbox

HELLO = Path(__file__).parents[2] / "testdata/hello"
MACHINES = {"amd64": 62, "arm64": 183}
"""The ELF machine numbers of the two programs."""
FOREIGN = "amd64" if platform.machine() == "aarch64" else "arm64"
HANDLER = Path("/proc/sys/fs/binfmt_misc") / {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}[FOREIGN]
DOCKERFILE = 'FROM scratch\nARG TARGETARCH\nCOPY hello-$TARGETARCH /hello\nRUN ["/hello", "x"]\nENTRYPOINT ["/hello"]\n'

pytestmark = needs_sandbox


@pytest.fixture
def emulation() -> None:
    """On a machine for continuous integration a missing handler is a failure: nobody would see that this is skipped."""
    if not HANDLER.exists():
        missing = f"no {HANDLER} (Debian packages qemu-user-static and binfmt-support)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path / "Dockerfile"


def machine(path: Path) -> int:
    """The ELF header's e_machine."""
    header = path.read_bytes()[:20]
    assert header.startswith(b"\x7fELF")
    return int(struct.unpack_from("<H", header, 18)[0])


@pytest.mark.usefixtures("emulation")
def test_a_command_of_another_machine(cli: Cli, dockerfile: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli.build(
        "--platform", f"linux/{FOREIGN}", "-t", "foreign", "-o", "type=image", "-o", f"type=local,dest={out}",
        "-f", dockerfile, HELLO,
    )  # fmt: skip
    greeting = f"Hello from Linux on {'aarch64' if FOREIGN == 'arm64' else 'x86_64'}"
    assert f"{greeting} x\n" in done.err
    assert cli.config("foreign")["architecture"] == FOREIGN
    assert machine(out / "hello") == MACHINES[FOREIGN]
    assert subprocess.check_output([out / "hello", "again"], text=True) == f"{greeting} again\n"


@pytest.mark.usefixtures("emulation")
def test_an_index(cli: Cli, dockerfile: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli.build(
        "--platform", "linux/amd64,linux/arm64", "-t", "both", "-o", "type=image", "-o", f"type=local,dest={out}",
        "-f", dockerfile, HELLO,
    )  # fmt: skip
    index = cli.manifest("both")
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert [entry["platform"] for entry in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
    ]
    for entry, name in zip(index["manifests"], ("amd64", "arm64"), strict=True):
        config = json.loads(cli.blob(json.loads(cli.blob(entry["digest"]))["config"]["digest"]))
        assert config["architecture"] == name
        assert machine(out / f"linux_{name}/hello") == MACHINES[name]


def test_without_a_handler(cli: Cli, tmp_path: Path) -> None:
    """No qemu emulates Altera's Nios II any more, so that the kernel knows nobody who would run this program."""
    program = bytearray((HELLO / "hello-amd64").read_bytes())
    struct.pack_into("<H", program, 18, 113)
    directory = context(tmp_path / "context", 'FROM scratch\nCOPY hello /\nRUN ["/hello", "x"]\n', hello=bytes(program))
    (directory / "hello").chmod(0o755)
    done = cli("build", "--progress", "plain", "--platform", "linux/nios2", directory)
    assert done.status == 1
    assert "error: Dockerfile:3: this machine cannot run programs for linux/nios2" in done.err
    assert "help: install qemu-user-static and binfmt-support (Debian)" in done.err
