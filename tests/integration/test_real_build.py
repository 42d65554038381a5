"""A real build: a Debian base, a compiler from its packages, a small final image, and what other tools say of it.

The packages come from wherever this machine's apt gets its own; the sandbox shares the network.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli, context, needs_sandbox
from tests.support.docker_daemon import docker_daemon, mounts_below

pytestmark = [pytest.mark.slow, needs_sandbox, pytest.mark.timeout(600)]

DOCKERFILE = """\
FROM base AS compiler
COPY apt/ /etc/apt/
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY greet.c /src/
WORKDIR /src
RUN gcc -static -O2 -DVERSION='"1.2"' -o /greet greet.c && /greet builder

FROM scratch
COPY --from=compiler /greet /bin/greet
COPY --from=compiler /etc/passwd /etc/passwd
LABEL org.opencontainers.image.title=greet
USER nobody
WORKDIR /home/nobody
ENTRYPOINT ["/bin/greet"]
CMD ["world"]
"""
PROGRAM = """\
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char directory[100];
    printf("greet %s: hello %s from %d in %s\\n", VERSION, argc > 1 ? argv[1] : "nobody", (int)getuid(),
           getcwd(directory, sizeof directory));
    return 0;
}
"""
GREETING = "greet 1.2: hello world from 65534 in /home/nobody\n"
NAME = "greet:1.2"


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def run(*arguments: str | os.PathLike[str], **options: Any) -> str:
    """A program's standard output; it must succeed."""
    done = subprocess.run(arguments, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that `make` fills once for all of xdist's workers."""
    base = factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(path)
    return path


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with a minimal Debian, made without our code."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap (Debian package mmdebstrap)")

    def make(directory: Path) -> None:
        archive = directory / "base.tar"
        arguments = ["mmdebstrap", "--variant=minbase", "bookworm", str(archive)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=400)
        if done.returncode:
            pytest.skip(f"mmdebstrap cannot make a base here: {done.stderr[-300:]}")
        layout(directory / "layout", archive)
        archive.unlink()

    return shared(tmp_path_factory, "debian", make) / "layout"


def layout(path: Path, archive: Path) -> None:
    """An OCI layout with one image of one layer."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    data = archive.read_bytes()
    layer = put(gzip.compress(data, 1, mtime=0), "layer.v1.tar+gzip")
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Cmd": ["bash"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
        "history": [{"created": "2025-01-01T00:00:00Z", "created_by": "mmdebstrap"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": [layer],
    }
    entry = put(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "12"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def apt_settings(directory: Path) -> None:
    """What this machine's apt is told of archives and proxies, as files for /etc/apt."""
    (directory / "apt.conf.d").mkdir(parents=True)
    for name in ("sources.list", "sources.list.d", "trusted.gpg.d", "keyrings"):
        source = Path("/etc/apt", name)
        if source.is_dir():
            shutil.copytree(source, directory / name)
        elif source.exists():
            shutil.copy(source, directory / name)
    wanted = ("Acquire::http::Proxy ", "Acquire::https::Proxy ", "Acquire::Check-Date ", "Acquire::Check-Valid-Until ")
    settings = [line for line in run("apt-config", "dump").splitlines() if line.startswith(wanted)]
    (directory / "apt.conf.d/90machine").write_text("\n".join([*settings, 'APT::Sandbox::User "root";', ""]))


@pytest.fixture(scope="session")
def built(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A store that holds the image, beside the image as `docker load` takes it (from a build that was all cached)."""

    def make(directory: Path) -> None:
        source = context(directory / "context", DOCKERFILE, **{"greet.c": PROGRAM})
        apt_settings(source / "apt")
        cli = Cli(directory / "store")
        arguments = ["build", "-t", NAME, "--build-context", f"base=oci-layout://{debian}:12", str(source)]
        done = cli.spawn(*arguments, seconds=400)
        assert done.status == 0, done.err[-3000:]
        assert "greet 1.2: hello builder from 0 in /src\n" in done.err
        done = cli.spawn(*arguments, "-o", f"type=docker,dest={directory}/image.tar")
        assert done.status == 0, done.err
        assert done.cached() == 8

    return Cli(shared(tmp_path_factory, "real", make) / "store")


@pytest.fixture(scope="session")
def archive(built: Cli) -> Path:
    return built.root.parent / "image.tar"


def test_the_image(built: Cli) -> None:
    files = built.files(NAME)
    assert sorted(files) == ["bin", "bin/greet", "etc", "etc/passwd", "home", "home/nobody"]
    assert (files["home/nobody"].uid, files["home/nobody"].gid) == (65534, 65534)
    assert files["bin/greet"].mode == 0o755
    config = built.config(NAME)
    assert config["config"]["User"] == "nobody"
    assert built.leftovers() == []


@needs("skopeo")
def test_skopeo_inspects_the_store(built: Cli) -> None:
    found = json.loads(run("skopeo", "inspect", f"oci:{built.root}:docker.io/library/{NAME}"))
    assert found["Digest"] == built.entries()[f"docker.io/library/{NAME}"]["digest"]
    assert found["Labels"] == {"org.opencontainers.image.title": "greet"}
    assert len(found["Layers"]) == 3
    config = json.loads(run("skopeo", "inspect", "--config", f"oci:{built.root}:docker.io/library/{NAME}"))
    assert config["config"]["Entrypoint"] == ["/bin/greet"]


@needs("skopeo")
def test_skopeo_copies_and_verifies(built: Cli, archive: Path, tmp_path: Path) -> None:
    run("skopeo", "copy", "--insecure-policy", f"oci:{built.root}:docker.io/library/{NAME}", f"dir:{tmp_path}/a")
    run("skopeo", "copy", "--insecure-policy", f"docker-archive:{archive}", f"dir:{tmp_path}/b")
    run("skopeo", "copy", "--insecure-policy", f"oci-archive:{archive}", f"dir:{tmp_path}/c")
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest == built.manifest(NAME)


@needs("umoci")
def test_umoci_unpacks(built: Cli, tmp_path: Path) -> None:
    """umoci takes short tags only, so it gets a copy of the layout under one."""
    shutil.copytree(built.root / "blobs", tmp_path / "layout/blobs")
    shutil.copy(built.root / "oci-layout", tmp_path / "layout")
    entry = {**built.entries()[f"docker.io/library/{NAME}"], "annotations": {"org.opencontainers.image.ref.name": "x"}}
    (tmp_path / "layout/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    run("umoci", "unpack", "--image", f"{tmp_path}/layout:x", tmp_path / "bundle")
    spec = json.loads((tmp_path / "bundle/config.json").read_text())
    assert spec["process"]["args"] == ["/bin/greet", "world"]
    assert spec["process"]["user"]["uid"] == 65534
    assert spec["process"]["cwd"] == "/home/nobody"
    assert run(tmp_path / "bundle/rootfs/bin/greet", "you").startswith("greet 1.2: hello you")


@needs("podman")
def test_podman_loads_and_runs(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # a runroot has 50 characters at most
        podman = ["podman", "--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs"]
        try:
            assert NAME in run(*podman, "load", "-i", archive)
            (found,) = json.loads(run(*podman, "image", "inspect", NAME))
            assert found["Config"]["Cmd"] == ["world"]
            assert found["User"] == "nobody"
            lines = json.loads(run(*podman, "history", "--format", "json", NAME))
            assert any("COPY /greet /bin/greet" in line["CreatedBy"] for line in lines)
            limits = ["--network", "none", "--log-driver", "none"]
            limits += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]  # its own may exceed what we have
            done = subprocess.run([*podman, "run", "--rm", *limits, NAME], capture_output=True, text=True, timeout=60)
            if done.returncode in (125, 126, 127):
                pytest.skip(f"podman takes the image, but runs no container here: {done.stderr.strip()[-300:]}")
            assert done.stdout == GREETING
        finally:
            subprocess.run([*podman, "rmi", "--all", "--force"], capture_output=True)
            for place in sorted(mounts_below(Path(short)), reverse=True):
                subprocess.run(["umount", "-l", place], capture_output=True)


@pytest.fixture
def docker() -> Iterator[list[str]]:
    with docker_daemon() as command:
        yield command


def test_docker_loads_and_runs(docker: list[str], archive: Path, built: Cli, tmp_path: Path) -> None:
    assert f"Loaded image: {NAME}" in run(*docker, "load", "-i", archive)
    (found,) = json.loads(run(*docker, "image", "inspect", NAME))
    assert found["Config"]["Labels"] == {"org.opencontainers.image.title": "greet"}
    assert found["RootFS"]["Layers"] == built.config(NAME)["rootfs"]["diff_ids"]
    history = run(*docker, "history", "--no-trunc", "--format", "{{.CreatedBy}}", NAME)
    assert "COPY /greet /bin/greet # buildkit" in history
    assert run(*docker, "run", "--rm", "--network", "none", NAME) == GREETING
    assert "hello you" in run(*docker, "run", "--rm", "--network", "none", NAME, "you")
    run(*docker, "save", "-o", tmp_path / "again.tar", NAME)
    with tarfile.open(tmp_path / "again.tar") as again:
        file = again.extractfile("manifest.json")
        assert file is not None
        assert json.load(file)[0]["RepoTags"] == [NAME]
