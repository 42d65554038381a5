"""The same Dockerfiles built here and by buildah: the same files and the same configuration.

`Case.differs` holds what is known to differ, with the reason. Not compared at all: times (buildah leaves those of a
build's moment), the number of layers (buildah was asked for one), the history, and `/etc`, `/dev`, `/proc`, `/run` and
`/sys`, which buildah makes in an image that runs a command, as mount points that it does not take away again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.builds import Cli, Entry, busybox_context, flatten, needs_sandbox

FIELDS = (
    "Env", "Cmd", "Entrypoint", "Labels", "WorkingDir", "User", "ExposedPorts", "Volumes", "StopSignal", "OnBuild",
    "Shell", "Healthcheck",
)  # fmt: skip
MADE_BY_BUILDAH = ("etc", "dev", "proc", "run", "sys")

# Before each command buildah copies itself into memory and seals the copy, which the kernel refuses while anything
# holds one of its pages, as what takes memory back may. That says nothing about either builder: it is started again.
BUSY = "sealing memfd copy: Device or resource busy"
ATTEMPTS = 4


class Case(NamedTuple):
    """What follows the base stage. `differs` maps a configuration's field or a path to the reason."""

    dockerfile: str
    arguments: tuple[str, ...] = ()
    differs: Mapping[str, str] = {}


CASES = {
    "copies": Case("COPY a.txt /\nCOPY tree /all/\nCOPY tree/sub a.txt /more/\nCOPY *.txt /texts/\n"),
    "links": Case("COPY tree/link tree/sub/ /copied/\nRUN ln /copied/deep /hard && ln -s nowhere /dangling\n"),
    "owners": Case(
        "COPY --chown=7:8 a.txt /one\nCOPY --chown=7 tree /two/\nCOPY --chmod=0640 a.txt /three\n"
        "RUN mkdir /kept && chmod 1777 /kept && chmod 4755 /one\n"
    ),
    "names": Case(
        "COPY passwd group /etc/\nCOPY --chown=app:staff a.txt /named\nUSER app\nRUN id > /tmp/who && touch /tmp/mine\n"
    ),
    "removed": Case("COPY tree /tree/\nRUN rm -r /tree/sub && mkdir /tree/sub && rm /tree/plain && mv /tree/link /l\n"),
    "archives": Case("ADD tree.tar.gz /unpacked/\nCOPY tree.tar.gz /packed/\nADD a.txt /plain\n"),
    "environment": Case(
        "ENV A=1 B=\"two words\" C='$A' D=${A:-x}${Z:-y}${A:+z}\nENV E $B and more\nENV A=2\n"
        'RUN echo "$A$B$C$D" > /out\n'
    ),
    "arguments": Case(
        "ARG GIVEN=default\nARG DEFAULT=default\nARG NEITHER\nENV G=$GIVEN\n"
        'RUN echo "$GIVEN $DEFAULT [$NEITHER]" > /out\n',
        ("--build-arg", "GIVEN=given"),
    ),
    "configuration": Case(
        'LABEL one=1 "two words"="a b" three="$PATH"\nEXPOSE 80 53/udp\nVOLUME /data [x\nSTOPSIGNAL SIGUSR1\n'
        'USER 5:6\nENTRYPOINT ["/bin/sh", "-c"]\nCMD ["true"]\n'
    ),
    "shell-forms": Case(
        'CMD echo "$A" | cat\nENTRYPOINT exec sh\nSHELL ["/bin/sh", "-ec"]\nRUN echo $0 > /out\nCMD ls\n',
        differs={"Cmd": "buildah takes SHELL for RUN only; Docker's reference has it for CMD, too"},
    ),
    "entrypoint-resets-cmd": Case(
        'CMD ["of the base"]\nFROM base AS again\nCMD ["a"]\nENTRYPOINT ["b"]\nFROM again\nENTRYPOINT ["c"]\n'
    ),
    "workdirs": Case("WORKDIR /deep/er\nRUN pwd > here\nWORKDIR ../up\nCOPY a.txt .\nCOPY a.txt sub/\nWORKDIR $PATH\n"),
    "stages": Case(
        "RUN echo made > /made\nFROM base AS two\nCOPY --from=base /bin/busybox /b\nFROM two\nCOPY --from=0 /tmp /t\n"
    ),
    "onbuild": Case("ONBUILD RUN echo later\nONBUILD COPY . /src\n"),
    "ignored": Case(
        "COPY . /context/\n",
        differs={"context/tree/sub": "its mode: buildah makes an ignored directory anew for a file in it that is not"},
    ),
}

buildah = shutil.which("buildah")
pytestmark = [
    needs_sandbox,
    pytest.mark.slow,
    pytest.mark.skipif(buildah is None, reason="needs buildah (Debian package buildah)"),
]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = busybox_context(tmp_path_factory.mktemp("buildah") / "context")
    (directory / "base/bin/id").symlink_to("busybox")
    (directory / "a.txt").write_text("a")
    (directory / "b.txt").write_text("b")
    (directory / "b.txt").chmod(0o600)
    (directory / "tree/sub").mkdir(parents=True)
    (directory / "tree/sub").chmod(0o711)
    (directory / "tree/sub/deep").write_text("deep")
    (directory / "tree/plain").write_text("plain")
    (directory / "tree/link").symlink_to("sub/deep")
    (directory / "passwd").write_text("root:x:0:0::/:/bin/sh\napp:x:12:34::/home:/bin/sh\n")
    (directory / "group").write_text("root:x:0:\nstaff:x:56:\n")
    subprocess.run(["tar", "-C", directory / "tree", "-czf", directory / "tree.tar.gz", "."], check=True)
    (directory / ".dockerignore").write_text("*.tar.gz\ntree/**\n!tree/sub/deep\n# note\n")
    return directory


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("builder") / "store")


@pytest.mark.parametrize("name", CASES)
def test_as_buildah(name: str, cli: Cli, context: Path, tmp_path: Path) -> None:
    case = CASES[name]
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        (context / "Dockerfile").read_text() + "RUN mkdir -p /tmp && chmod 777 /tmp\n" + case.dockerfile
    )
    # only one case is about what is ignored
    (tmp_path / "Dockerfile.dockerignore").write_text(
        (context / ".dockerignore").read_text() if name == "ignored" else "nothing\n"
    )
    theirs = _build_with_buildah(dockerfile, context, tmp_path, case.arguments, name)
    cli.build("-t", name, "-f", dockerfile, *case.arguments, context)
    ours = _plain(cli.files(name), cli.config(name)["config"])
    found = {
        key: (ours.get(key), theirs.get(key))
        for key in sorted({*ours, *theirs} - case.differs.keys())
        if ours.get(key) != theirs.get(key)
    }
    assert found == {}


def _plain(files: Mapping[str, Entry], config: Mapping[str, Any]) -> dict[str, Any]:
    """Files by their paths and configuration by its fields, in a form that is short to show. An empty list says
    nothing, and neither does the working directory `/`."""
    found = {name: config[name] for name in FIELDS if config.get(name) not in (None, "", [], {}, "/")}
    for path, entry in files.items():
        if path.partition("/")[0] not in MADE_BY_BUILDAH:
            content = entry.content and (entry.content if len(entry.content) < 80 else hash(entry.content))
            found[path] = (entry.type, oct(entry.mode & 0o7777), entry.uid, entry.gid, content, entry.link)
    return found


def _build_with_buildah(
    dockerfile: Path, context: Path, tmp_path: Path, arguments: tuple[str, ...], name: str
) -> dict[str, Any]:
    """What buildah's image holds, as `_plain` shows it."""
    assert buildah is not None
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    command: list[str | os.PathLike[str]] = [
        buildah, "--storage-driver", "vfs", "--root", tmp_path / "root", "--runroot", tmp_path / "runroot",
        "bud", "--isolation", "chroot", "--layers=false", "--format", "docker", "--quiet", "--network", "host",
        "--signature-policy", tmp_path / "policy.json", "--identity-label=false",
        "--ignorefile", f"{dockerfile}.dockerignore",
        "-f", dockerfile, "-t", f"docker-archive:{tmp_path}/image.tar", *arguments, context,
    ]  # fmt: skip
    for _ in range(ATTEMPTS):
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60)
        if BUSY not in done.stderr:
            break
    assert done.returncode == 0, done.stderr

    with tarfile.open(tmp_path / "image.tar") as archive:

        def member(path: str) -> bytes:
            file = archive.extractfile(path)
            assert file is not None
            return file.read()

        (image,) = json.loads(member("manifest.json"))
        config = json.loads(member(image["Config"]))
        return _plain(flatten([member(path) for path in image["Layers"]]), config["config"])
