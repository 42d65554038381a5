"""What `ls`, `cat`, `layers` and `diff` say of built images, compared with what umoci unpacks and dpkg says."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_real_build import debian, needs, run
from tests.support.builds import Cli, busybox_context, context, needs_sandbox

__all__ = ["debian"]  # a fixture: the tests below take it by its name

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
}


def listed(cli: Cli, name: str) -> dict[str, dict[str, Any]]:
    done = cli("ls", "-R", "--format", "json", name)
    assert done.status == 0, done.err
    return {entry["path"]: entry for entry in json.loads(done.out)}


def check_against_umoci(cli: Cli, name: str, directory: Path) -> dict[str, dict[str, Any]]:
    """Compare all names, kinds, modes, owners, sizes and links with what umoci unpacks."""
    reference = f"oci:{cli.root}:docker.io/library/{name}:latest"
    run("skopeo", "copy", "-q", "--insecure-policy", reference, f"oci:{directory}/layout:app")
    run("umoci", "raw", "unpack", "--image", f"{directory}/layout:app", f"{directory}/rootfs")
    root = directory / "rootfs"
    found = listed(cli, name)
    expected = set()
    for path in root.rglob("*"):
        label = f"/{path.relative_to(root)}"
        expected.add(label)
        status = path.lstat()
        entry = found[label]
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        assert (entry["type"], entry["uid"], entry["gid"]) == (kind, status.st_uid, status.st_gid), label
        if kind == "symlink":
            assert entry["link"] == os.readlink(path), label
        else:
            assert entry["mode"] == f"{stat.S_IMODE(status.st_mode):04o}", label
        if kind == "file":
            assert entry["size"] == status.st_size, label
    assert set(found) == expected
    return found


@needs_sandbox
@needs("skopeo", "umoci")
def test_a_small_image(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    commands = (
        "RUN mkdir -p /a/b /old/deep && echo x > /a/b/file && echo y > /old/deep/file && ln -s b /a/link\n"
        "RUN ln /a/b/file /a/b/hard && chmod 4711 /a/b/file && mkfifo /a/fifo || true\n"
        "RUN rm -r /old && mkdir /old && echo z > /old/new && rm /a/link && mkdir /a/link && echo w > /a/link/w\n"
        "RUN rm -r /a/b && echo 'no directory' > /a/b\n"
        "COPY --chown=5:6 base/bin/busybox /a/link/\n"
    )
    cli.build("-t", "small", busybox_context(tmp_path / "context", commands))
    found = check_against_umoci(cli, "small", tmp_path)
    assert found["/a/b"]["type"] == "file"
    assert found["/old/new"]["layer"] == 4
    assert "/old/deep" not in found


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_sandbox
@needs("skopeo", "umoci")
def test_a_debian_image(debian: Path, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    source = context(
        tmp_path / "context",
        "FROM base\n"
        "RUN mkdir -p /var/lib/apt/lists && head -c 100000 /dev/zero > /var/lib/apt/lists/some_Packages\n"
        "RUN dpkg --purge --force-all tzdata && rm -rf /usr/share/doc && chmod g+w /usr/bin/bash\n",
    )
    options = ["--build-context", f"base=oci-layout://{debian}:12"]
    cli.build("-t", "debian", *options, source)
    found = check_against_umoci(cli, "debian", tmp_path)
    assert len(found) > 3000
    assert "NAME=" in cli("cat", "debian", "/etc/os-release").out.decode()  # a link to /usr/lib

    analysis = json.loads(cli("layers", "--format", "json", "debian").out)
    (lists,) = [cache for cache in analysis["caches"] if cache["manager"] == "apt lists"]
    assert (lists["path"], lists["layers"]) == ("/var/lib/apt/lists", [2])
    assert lists["size"] >= 100_000
    bash = next(waste for waste in analysis["waste"] if waste["path"] == "/usr/bin/bash")
    assert (bash["copies"][0]["layer"], bash["copies"][0]["hiddenBy"]) == (1, 3)

    difference = json.loads(cli("diff", "--format", "json", "debian~1", "debian").out)
    assert [(one["manager"], one["name"], one["after"]) for one in difference["packages"]] == [("dpkg", "tzdata", None)]
    changed = {one["path"]: one for one in difference["files"]}
    assert changed["/usr/bin/bash"]["differs"] == ["mode"]
    assert changed["/usr/share/doc"]["change"] == "removed"

    done = cli("build", "-q", *options, "--max-waste", "1%", source)
    assert done.status == 1
    assert "Dockerfile:3: " in done.err
