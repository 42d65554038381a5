"""The root of a step: layers merged, changes as a diff, mounts, and mount points that leave no trace."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.sandbox.command import Mount
from tests.sandbox.outcome import Run


def make(root: Path, **files: str) -> Path:
    """A layer of files; `__` in a name is a slash."""
    root.mkdir()
    root.chmod(0o755)
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_changes_are_the_upper_directory(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = make(tmp_path / "layer", a="a", d__x="x", e__y="y")
    outcome = run("rm /a; rm -r /d; mkdir /d; echo new > /d/new; echo more >> /e/y", lowers=(str(layer), str(busybox)))
    assert outcome.changed() == ["a", "d", "d/new", "e", "e/y"]
    status = (outcome.upper / "a").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    assert os.getxattr(outcome.upper / "d", "trusted.overlay.opaque") == b"y"
    assert (outcome.upper / "e/y").read_text() == "ymore\n"
    assert layer.joinpath("a").exists()


def test_renamed_directory_is_whole(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = make(tmp_path / "layer", d__x="x")
    outcome = run("mv /d /e", lowers=(str(layer), str(busybox)))
    assert outcome.changed() == ["d", "e", "e/x"]
    assert "trusted.overlay.redirect" not in os.listxattr(outcome.upper / "e")


def test_120_layers(run: Run, busybox: Path, tmp_path: Path) -> None:
    name = "a-rather-long-name-so-that-the-options-would-not-fit-into-one-page-of-memory"
    layers = [make(tmp_path / f"{name}-{i}", **{f"f{i}": str(i), "who": str(i)}) for i in range(120)]
    outcome = run("cat /who; echo; ls / | grep -c ^f", lowers=(*map(str, layers), str(busybox)))
    assert outcome.lines == ["0", "120"]


def test_odd_names_of_layers(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = make(tmp_path / "a:b,c\\d e=f", x="x")
    assert run("cat /x", lowers=(str(layer), str(busybox))).out == "x"


def test_nothing_leaves_no_trace(run: Run) -> None:
    outcome = run("touch /dev/x /dev/shm/y; mkdir /dev/d", hosts="h\n", resolv_conf="r\n")
    assert outcome.result.exit_status == 0
    assert outcome.changed() == []


def test_generated_files(run: Run) -> None:
    outcome = run("cat /etc/hosts /etc/resolv.conf; ls /etc", hosts="h\n", resolv_conf="r\n")
    assert outcome.lines == ["h", "r", "hosts", "resolv.conf"]
    assert outcome.result.mount_points == ("/etc/resolv.conf", "/etc/hosts")
    assert run("wc -c < /etc/hosts", hosts="caf\udce9\n").lines == ["5"]
    denied = run("echo x > /etc/hosts; rm /etc/hosts; stat -c %Y /etc", hosts="h\n", resolv_conf="r\n")
    assert denied.out == "1000000000\n"  # the time of /etc is that of the image's, not that of the stub
    assert "Read-only" in denied.err
    assert "busy" in denied.err
    assert denied.changed() == []


def test_writing_beside_a_mount_point_keeps_the_directory(run: Run) -> None:
    outcome = run("touch /etc/new", hosts="h\n")
    assert outcome.changed() == ["etc", "etc/new"]


def _link_to_nowhere(layer: Path) -> None:
    (layer / "etc").mkdir()
    (layer / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")


def _link_from_the_host(layer: Path) -> None:
    (layer / "etc").mkdir()
    (layer / "etc/hosts").symlink_to("/etc/hostname")


def _deleted_file(layer: Path) -> None:
    (layer / "etc").mkdir()
    os.mknod(layer / "etc/hosts", stat.S_IFCHR)


def _opaque_directory(layer: Path) -> None:
    (layer / "etc").mkdir()
    os.setxattr(layer / "etc", "trusted.overlay.opaque", b"y")


def _linked_directory(layer: Path) -> None:
    (layer / "usr/etc").mkdir(parents=True)
    (layer / "etc").symlink_to("/usr/etc")


@pytest.mark.parametrize(
    "make_image", [_link_to_nowhere, _link_from_the_host, _deleted_file, _opaque_directory, _linked_directory]
)
def test_generated_files_that_nothing_leads_to(
    run: Run, busybox: Path, tmp_path: Path, make_image: Callable[[Path], None]
) -> None:
    """No stub below the image's layers can be seen: one is made above them."""
    layer = make(tmp_path / "layer")
    make_image(layer)
    below = make(tmp_path / "below", etc__hosts="the image's", etc__other="other")
    script = "cat /etc/resolv.conf /etc/hosts; echo x > /new; ls -a /work 2>/dev/null"
    outcome = run(script, lowers=(str(layer), str(below), str(busybox)), resolv_conf="r\n", hosts="h\n")
    assert (outcome.out, outcome.err) == ("r\nh\n", "")
    assert outcome.changed() == ["new"]
    assert all("/etc/other" not in point for point in outcome.result.mount_points)
    assert outcome.result.mount_points


def test_files_of_the_image_that_are_covered_stay(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = make(tmp_path / "layer", etc__hosts="the image's", etc__resolv="x")
    script = "cat /etc/hosts; stat -c %a /etc/hosts"
    outcome = run(script, lowers=(str(layer), str(busybox)), hosts="h\n", resolv_conf="")
    assert outcome.lines == ["h", "644"]
    assert outcome.result.mount_points == ("/etc/resolv.conf",)


def test_who_uncovers_a_stub_deletes_nothing(run: Run) -> None:
    outcome = run("umount /etc/hosts && rm /etc/hosts", hosts="h\n", security="insecure")
    assert outcome.result.exit_status == 0
    assert outcome.result.mount_points == ("/etc/hosts",)
    assert stat.S_ISCHR((outcome.upper / "etc/hosts").lstat().st_mode)  # of what the layers do not have


def test_system_directories_missing_in_the_image_stay(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = make(tmp_path / "layer")
    (layer / "bin").mkdir()
    for name in ("busybox", "sh"):
        os.link(busybox / "bin/busybox", layer / "bin" / name)
    outcome = run("echo x > /f", lowers=(str(layer),), hosts="h\n", resolv_conf="r\n", environment=())
    assert outcome.result.exit_status == 0
    assert outcome.changed() == ["dev", "f", "proc", "sys"]
    assert [(outcome.upper / name).stat().st_mode & 0o7777 for name in ("dev", "proc", "sys")] == [0o755] * 3


def test_directories_that_stay_belong_to_the_user(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = make(tmp_path / "layer")
    (layer / "bin").mkdir()
    os.link(busybox / "bin/busybox", layer / "bin/sh")
    for directory in ("/srv/app", "/etc/app"):  # beside files that the step has for itself, too
        outcome = run("echo", lowers=(str(layer),), hosts="h\n", environment=(), directory=directory, uid=7, gid=8)
        assert outcome.result.exit_status == 0
        owners = [(outcome.upper / path.lstrip("/")).stat() for path in (os.path.dirname(directory), directory)]
        assert [(status.st_uid, status.st_gid) for status in owners] == [(7, 8)] * 2


def test_no_layers_at_all(run: Run) -> None:
    result = run("true", lowers=()).result
    assert result.error == 'exec: "/bin/sh": stat /bin/sh: no such file or directory'


def test_a_link_in_place_of_proc_is_refused(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = make(tmp_path / "layer")
    (layer / "proc").symlink_to("/tmp")
    result = run("true", lowers=(str(layer), str(busybox))).result
    assert result.error == "in the image /proc is a symbolic link; it must be a directory"
    assert result.setup_failed


def test_missing_layer_is_named(run: Run) -> None:
    assert run("true", lowers=("/none/such",)).result.error == "layer /none/such: No such file or directory"


def test_bind_directory_and_file(run: Run, tmp_path: Path) -> None:
    source = make(tmp_path / "source", f="f\n", d__g="g\n")
    mounts = (
        Mount("/m", source=str(source)),
        Mount("/sub", source=str(source), subpath="d"),
        Mount("/deep/file", source=str(source), subpath="/f"),
        Mount("/etc/one", source=str(source / "f")),
    )
    outcome = run("cat /m/f /sub/g /deep/file /etc/one; touch /m/new || echo read-only", mounts=mounts)
    assert outcome.lines == ["f", "g", "f", "f", "read-only"]
    assert outcome.changed() == []
    assert outcome.result.mount_points == ("/m", "/sub", "/deep", "/deep/file", "/etc/one")


def test_writable_bind_keeps_what_is_written(run: Run, tmp_path: Path) -> None:
    source = make(tmp_path / "cache")
    run("echo kept > /c/f", mounts=(Mount("/c", source=str(source), read_only=False),))
    assert (source / "f").read_text() == "kept\n"


def test_overlay_mounts(run: Run, tmp_path: Path, overlay: object) -> None:
    assert callable(overlay)
    upper, work = overlay()
    top, bottom = make(tmp_path / "top", a="top\n"), make(tmp_path / "bottom", a="bottom\n", d__b="b\n")
    both = (str(top), str(bottom))
    mounts = (
        Mount("/ro", "overlay", lowers=both),
        Mount("/one", "overlay", lowers=both[1:], subpath="d"),
        Mount("/rw", "overlay", lowers=both, upper=upper, work=work, read_only=False),
        Mount("/none", "overlay", lowers=()),
    )
    outcome = run("cat /ro/a /ro/d/b /one/b; echo x > /rw/a; cat /rw/a; touch /ro/x || ls /none", mounts=mounts)
    assert outcome.lines == ["top", "b", "b", "x"]
    assert (top / "a").read_text() == "top\n"
    assert outcome.changed() == []


def test_tmpfs(run: Run) -> None:
    mounts = (
        Mount("/t", "tmpfs", size=1 << 20, read_only=False),
        Mount("/u", "tmpfs", mode=0o700, uid=5, read_only=False),
    )
    fill = "dd if=/dev/zero of=/t/f bs=1M count=3 2> /dev/null || echo full"
    outcome = run(f"stat -c '%a %u' /t /u; {fill}", mounts=mounts)
    assert outcome.lines == ["1777 0", "700 5", "full"]


def test_file_in_memory(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = make(tmp_path / "layer", etc__group="group\n")
    mounts = (
        Mount("/run/secrets/s", "file", content=b"s3cret", mode=0o400, uid=1000, gid=50),
        Mount("/etc/group", "file", content=b"hidden", mode=0o444),
    )
    outcome = run(
        "cd /run/secrets; cat s /etc/group; echo; stat -c '%a %u %g' s; echo x > s || echo closed",
        mounts=mounts,
        lowers=(str(layer), str(busybox)),
    )
    assert outcome.lines == ["s3crethidden", "400 1000 50", "closed"]
    assert outcome.changed() == []
    as_owner = run("cat /run/secrets/s", mounts=mounts, uid=1000, gid=50)
    assert as_owner.out == "s3cret"
    assert run("cat /run/secrets/s", mounts=mounts, uid=1001, gid=51).result.exit_status == 1


def test_mounts_in_mounts(run: Run, tmp_path: Path, overlay: object) -> None:
    assert callable(overlay)
    upper, work = overlay()
    source = make(tmp_path / "source", d__g="g\n")
    outer = Mount("/a", "overlay", lowers=(str(source),), upper=upper, work=work, read_only=False)
    inner = Mount("/a/new/inner", source=str(source / "d"))
    outcome = run("ls /a /a/new/inner", mounts=(outer, inner))
    assert outcome.lines == ["/a:", "d", "new", "", "/a/new/inner:", "g"]
    closed = run("true", mounts=(Mount("/a", source=str(source)), inner))
    assert closed.result.error == "mount point /a/new/inner cannot be made in another mount: Read-only file system"


def test_later_mounts_cover_earlier_ones(run: Run, tmp_path: Path) -> None:
    mounts = tuple(Mount("/m", source=str(make(tmp_path / name, f=name))) for name in ("one", "two"))
    assert run("cat /m/f", mounts=mounts).out == "two"


@pytest.mark.parametrize("target", ["/", "/.", "/proc", "/proc/sys", "//proc/../proc/self", "/etc/.."])
def test_targets_that_are_refused(run: Run, target: str) -> None:
    result = run("true", mounts=(Mount(target, "tmpfs"),)).result
    assert result.error == f"invalid mount target {target!r}"


def test_file_over_directory_and_directory_over_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    error = run("true", mounts=(Mount("/etc", source=str(tmp_path / "f")),)).result.error
    assert error == "mount bind at /etc: the source is a file, but the image has a directory there"
    error = run("true", mounts=(Mount("/bin/busybox", source=str(tmp_path)),)).result.error
    assert error == "mount bind at /bin/busybox: the source is a directory, but the image has a file there"


def test_missing_source(run: Run, tmp_path: Path) -> None:
    error = run("true", mounts=(Mount("/m", source=str(tmp_path / "none")),)).result.error
    assert error == f"source of the mount at /m: {tmp_path}/none: No such file or directory"
    error = run("true", mounts=(Mount("/m", source=str(tmp_path), subpath="nope"),)).result.error
    assert error == "mount at /m: nope: No such file or directory"


def test_linked_target_stays_in_the_root(run: Run, busybox: Path, tmp_path: Path) -> None:
    """CVE-2024-23651 and its kin: a link in the image leads a mount target elsewhere on the host."""
    victim = make(tmp_path / "victim")
    source = make(tmp_path / "source", f="f\n")
    layer = make(tmp_path / "layer")
    (layer / "out").symlink_to("../../../../../../.." + str(victim))
    (layer / "absolute").symlink_to(victim)
    mounts = (Mount("/out/x", source=str(source)), Mount("/absolute", source=str(source)))
    outcome = run(f"cat {victim}/x/f {victim}/f", mounts=mounts, lowers=(str(layer), str(busybox)))
    # The second mount covers the first: both lead to the same path, inside.
    assert outcome.lines == ["f"]
    assert list(victim.iterdir()) == []
    assert outcome.changed() == []


def test_linked_subpath_stays_in_the_source(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("host")
    source = make(tmp_path / "source", secret="inside")
    (source / "link").symlink_to("../secret")
    (source / "absolute").symlink_to("/secret")
    for name in ("link", "absolute"):
        assert run("cat /m", mounts=(Mount("/m", source=str(source), subpath=name),)).out == "inside"


def test_link_loop(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = make(tmp_path / "layer")
    (layer / "loop").symlink_to("loop")
    result = run("true", mounts=(Mount("/loop/x", "tmpfs"),), lowers=(str(layer), str(busybox))).result
    assert result.error == "/loop/x: too many symbolic links"


def test_socket_can_be_bound(run: Run, tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent"))
        mount = Mount("/run/agent", source=str(tmp_path / "agent"))
        outcome = run("test -S /run/agent && echo socket", mounts=(mount,))
    assert outcome.out == "socket\n"


def test_the_host_sees_no_mounts(run: Run) -> None:
    """Others may mount what they like meanwhile; ours are known by how they are made (see `rootfs`)."""
    before = set(Path("/proc/self/mountinfo").read_text().splitlines())
    inside = run("cat /proc/self/mountinfo", mounts=(Mount("/t", "tmpfs"),)).out.splitlines()
    assert [line for line in inside if _is_of_a_step(line)]
    after = set(Path("/proc/self/mountinfo").read_text().splitlines())
    assert not [line for line in after - before if _is_of_a_step(line)]


def _is_of_a_step(line: str) -> bool:
    return " - tmpfs scratch " in line or re.search(r",lowerdir=\d+(:\d+)*,", line) is not None


def test_more_layers_than_the_kernel_merges(run: Run, busybox: Path, tmp_path: Path) -> None:
    layers = [tmp_path / str(number) for number in range(500)]
    for layer in layers:
        layer.mkdir()
    result = run("true", lowers=(*map(str, layers), str(busybox))).result
    assert result.setup_failed
    assert re.match("50[1-3] layers are too many: the kernel merges 500 at most", result.error)
    assert run("true", lowers=(*map(str, layers[:400]), str(busybox))).result.exit_status == 0
