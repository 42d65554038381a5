"""`builder doctor`: what it says of this machine, and of machines that lack something."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from builder.api import doctor
from builder.api.doctor import LIMITED, MISSING, OK, Diagnosis, Finding, Rootless, examine
from builder.api.doctor_probe import NAMESPACES, OVERLAY, PROC, STORE, USER_NAMESPACE, Probed
from builder.cli.rootless import become_root, subordinate_ids
from builder.errors import Unsupported
from builder.filesystem.erofs_mount import is_able
from builder.sandbox.syscalls import prctl
from tests.support.builds import PROJECT, Cli, needs_sandbox

ROOTLESS = Rootless(become_root, subordinate_ids)
Find = Callable[[str], Finding]


def finder(diagnosis: Diagnosis) -> Find:
    return lambda name: next(finding for finding in diagnosis.findings if finding.name == name)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}


@needs_sandbox
def test_a_machine_that_can(tmp_path: Path, environ: dict[str, str]) -> None:
    diagnosis = examine(str(tmp_path / "not/there/yet"), environ, ROOTLESS)
    find = finder(diagnosis)
    assert diagnosis.isolation == "namespaces"
    for name in ("RUN steps", "kernel", "user", "namespaces", "overlayfs", "seccomp"):
        assert find(name).state == OK, find(name)
    assert ("as images" in find("overlayfs").detail) is is_able(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@needs_sandbox
def test_from_the_command_line(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    done = cli("doctor")
    assert done.status == 0, done.err
    assert done.out.startswith(b"ok       RUN steps")
    document = json.loads(cli("doctor", "--format", "json").out)
    assert document["isolation"] == "namespaces"
    assert {finding["state"] for finding in document["findings"]} <= {OK, LIMITED, MISSING}
    assert not cli.root.exists()


@needs_sandbox
@pytest.mark.parametrize(
    ("lost", "isolation", "status"), [(("SYS_ADMIN",), "chroot", 0), (("SYS_ADMIN", "SYS_CHROOT"), "", 1)]
)
def test_in_a_container(tmp_path: Path, lost: tuple[str, ...], isolation: str, status: int) -> None:
    cli = Cli(tmp_path / "store")
    script = (
        "import os, sys\nfrom builder.sandbox import capabilities as c\n"
        f"c.limit_bounding(c.bounding(), c.bounding() & ~sum(1 << c.NAMES.index(name) for name in {lost}))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'builder', *sys.argv[1:]])\n"
    )
    command = [sys.executable, "-c", script, *cli.arguments("doctor", "--format", "json")]
    done = subprocess.run(command, env=cli.environ, cwd=PROJECT, capture_output=True)
    assert done.returncode == status, done.stderr
    document = json.loads(done.stdout)
    assert document["isolation"] == isolation
    (namespaces,) = (finding for finding in document["findings"] if finding["name"] == "namespaces")
    assert namespaces["state"] == (LIMITED if isolation else MISSING)
    assert "--cap-add SYS_ADMIN" in namespaces["remedy"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize("allowed", [True, False])
def test_without_root(tmp_path: Path, environ: dict[str, str], allowed: bool) -> None:
    """Another user, who has a user namespace of one id or none at all."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, 4711, 4711)

    def refuse() -> None:
        raise Unsupported("no user namespace can be made: Operation not permitted")

    import_module("builder.filesystem.syscalls")  # the other user may not be able to read any module
    codecs.lookup("ascii")
    answers, answer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setresgid(4711, 4711, 4711)
            os.setresuid(4711, 4711, 4711)
            prctl(4, 1)  # PR_SET_DUMPABLE: it may write its own id maps again, as after exec
            rootless = Rootless(become_root if allowed else refuse, lambda path: None)
            os.write(answer, msgspec.json.encode(examine(str(store), environ, rootless)))
        finally:
            os._exit(0)
    os.close(answer)
    with open(answers, "rb") as file:
        diagnosis = msgspec.json.decode(file.read(), type=Diagnosis)
    os.waitpid(child, 0)
    find = finder(diagnosis)
    assert find("subordinate ids").state == LIMITED
    assert "usermod --add-subuids" in find("subordinate ids").remedy
    if not allowed:
        assert diagnosis.isolation == ""
        assert find("RUN steps").state == MISSING
        assert find("namespaces").remedy
    elif find("namespaces").state != OK:
        pytest.skip(f"no user namespace can be made here: {find('namespaces').detail}")
    else:
        assert diagnosis.isolation == "namespaces"
        assert find("overlayfs").state == OK


@pytest.mark.parametrize(
    ("failed", "name", "remedy"),
    [
        (USER_NAMESPACE, "namespaces", ""),
        (NAMESPACES, "namespaces", "SYS_ADMIN"),
        (PROC, "namespaces", "systempaths=unconfined"),
        (STORE, "overlayfs", "--root"),
        (OVERLAY, "overlayfs", "put the store on ext4"),
    ],
)
def test_what_fails_when_it_is_tried(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, failed: str, name: str, remedy: str
) -> None:
    monkeypatch.setattr(doctor, "probe", lambda directory, become_root: Probed(failed, "it failed"))
    monkeypatch.setattr("builder.sandbox.chroot.missing", lambda: ["CAP_SYS_CHROOT"])
    diagnosis = examine(str(tmp_path), environ, ROOTLESS)
    assert diagnosis.isolation == ""
    found = finder(diagnosis)(name)
    assert found.state == MISSING
    if os.geteuid() == 0 or name != "namespaces":
        assert remedy in found.remedy


def test_what_is_not_installed(tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"credsStore": "lost"}')
    config = tmp_path / "builder.toml"
    config.write_text("[registry")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(doctor, "_BINFMT", str(tmp_path))
    find = finder(examine(str(tmp_path), {**environ, "BUILDER_CONFIG": str(config)}, ROOTLESS))
    assert find("git").remedy == "apt-get install git"
    assert "docker-credential-lost" in find("credentials").detail
    assert find("configuration").state == LIMITED
    assert "qemu-user-static" in find("architectures").remedy


@pytest.mark.parametrize(("flags", "able"), [("OCF", True), ("OC", False)])
def test_handlers_must_be_open_beforehand(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, flags: str, able: bool
) -> None:
    """Without the flag F the kernel looks for the interpreter inside of the step's root."""
    monkeypatch.setattr(doctor, "_BINFMT", str(tmp_path))
    (tmp_path / "qemu-s390x").write_text(f"enabled\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\n")
    detail = finder(examine(str(tmp_path), environ, ROOTLESS))("architectures").detail
    assert ("s390x" in detail.partition("; not ")[0]) == able
