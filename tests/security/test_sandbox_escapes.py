"""Known ways out of containers, tried one by one. Each test fails without what keeps the step in."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.sandbox import landlock
from builder.sandbox.command import Mount
from tests.sandbox.outcome import Run
from tests.security.attempts import Call, program, results
from tests.support.builds import Cli, busybox_context, needs_sandbox

pytestmark = needs_sandbox
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs a program that is built for x86-64")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory of the host that no step is given, with a file."""
    place = tmp_path / "host"
    place.mkdir()
    (place / "secret").write_text("of the host")
    return place


def calls(run: Run, *tried: tuple[str, Call], **fields: object) -> dict[str, int]:
    mounts = (Mount("/attempt", "file", content=program([call for _, call in tried]), mode=0o755),)
    outcome = run("/attempt | od -An -v -tx1", mounts=mounts, **fields)
    assert outcome.result.exit_status == 0, outcome
    return results(bytes.fromhex(outcome.out), [name for name, _ in tried])


# --- processes


@x86_64
def test_processes_of_the_host_cannot_be_named(run: Run) -> None:
    """ptrace, kill, pidfd and process_vm_readv with the number of a process of the host."""
    victim = os.getpid()
    vector = struct.pack("<QQ", 0x400000, 8)
    found = calls(
        run,
        ("attach", (101, 16, victim, 0, 0)),
        ("kill", (62, victim, 0)),
        ("pidfd", (434, victim, 0)),
        ("read memory", (310, victim, vector, 1, vector, 1, 0)),
        ("priority", (141, 0, victim, 5)),
        ("limits", (302, victim, 7, 0, b"")),
        ("affinity", (204, victim, 8, b"")),
        ("group", (121, victim)),
    )
    assert set(found.values()) == {errno.ESRCH}


@x86_64
def test_no_descriptor_is_left_open(run: Run) -> None:
    """CVE-2024-21626: a descriptor of a directory of the host, wherever it may be among the numbers."""
    held = [os.open("/", os.O_RDONLY | os.O_DIRECTORY) for _ in range(40)]
    try:
        for descriptor in held:
            os.set_inheritable(descriptor, True)
        found = calls(run, *((str(number), (72, number, 1)) for number in range(3, 1024)))
        assert set(found.values()) == {errno.EBADF}
        outcome = run("for n in $(seq 3 30); do ls /proc/self/fd/$n/ 2>/dev/null; done; true")
        assert "root" not in outcome.lines
    finally:
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize("workdir", ["/proc/self/fd/7", "/proc/self/fd/8/../../..", "/proc/1/cwd", "/dev/fd/9"])
def test_a_workdir_of_a_descriptor(tmp_path: Path, canary: Path, workdir: str) -> None:
    """CVE-2024-21626 by the real command: the directory is one of the image's, or the build fails."""
    script = f"WORKDIR {workdir}\nRUN ls ../../../../../../..{canary} && echo ESCAPED\n"
    done = Cli(tmp_path / "store")(
        "build", "--progress", "plain", busybox_context(tmp_path / "c", f"FROM base\n{script}")
    )
    assert done.status == 1
    assert "ESCAPED\n" not in done.err.replace("echo ESCAPED\n", "")


def test_the_program_of_the_sandbox_is_out_of_reach(run: Run) -> None:
    """CVE-2019-5736: /proc/PID/exe of what set the step up. The step is process 1, and there is no other."""
    outcome = run("ls -l /proc/1/exe | sed 's/.*-> //'; ls /proc | grep -c '^[0-9]*$'; cat /proc/1/comm")
    assert outcome.lines[0] == "/bin/busybox"


# --- files


@x86_64
def test_chroot_twice(run: Run, canary: Path) -> None:
    """The old way out of a chroot leads to the root of the step, because what was above it is unmounted."""
    found = calls(
        run,
        ("hold the root", (2, b"/", 0x10000)),  # descriptor 3
        ("mkdir", (83, b"/jail", 0o755)),
        ("chroot", (161, b"/jail")),
        ("fchdir", (81, 3)),
        *((f"up {number}", (80, b"..")) for number in range(20)),
        ("chroot again", (161, b".")),
        ("own file", (2, b"/bin/busybox", 0)),
        ("the host's", (2, f"{canary}/secret".encode(), 0)),
    )
    assert found["chroot"] == found["fchdir"] == found["chroot again"] == 0
    assert found["own file"] < 0
    assert found["the host's"] == errno.ENOENT


@x86_64
def test_open_by_handle(run: Run, canary: Path) -> None:
    """Shocker: a handle of a file of the host, guessed, and a descriptor of any file on the same file system."""
    handle = struct.pack("<IiQQ", 8, 1, canary.stat().st_ino, 0)
    found = calls(
        run,
        ("hold", (2, b"/etc", 0x10000)),
        ("guess", (304, 3, handle, 0)),
        ("root", (304, 3, struct.pack("<IiQ", 8, 1, 2), 0)),
    )
    assert found["guess"] == found["root"] == errno.EPERM


def test_the_root_of_a_process_is_the_steps(run: Run, canary: Path) -> None:
    reach = " ".join(
        f"{way}{canary}/secret" for way in ("/proc/1/root", "/proc/self/root", "/proc/1/cwd/..", "/../../..")
    )
    assert "of the host" not in run(f"cat {reach}").out


def test_no_file_system_of_the_host_is_shown(run: Run, canary: Path) -> None:
    outcome = run("cat /proc/mounts /proc/1/mountinfo /proc/self/mountstats")
    assert str(canary.parent) not in outcome.out
    assert "/work" not in outcome.out


def test_everything_the_kernel_is_told_by_files_is_read_only(run: Run) -> None:
    """core_pattern, release_agent, uevent_helper, binfmt_misc: what a step writes there the host would run."""
    outcome = run("cat /proc/self/mounts")
    kept = [line.split() for line in outcome.lines if line.split()[1].startswith(("/sys", "/proc/"))]
    assert {"/sys", "/proc/sys"} <= {fields[1] for fields in kept}
    writable = [fields[1] for fields in kept if not fields[3].startswith("ro")]
    assert all(_is_masked(path) for path in writable), writable
    script = (
        "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /sys/kernel/uevent_helper"
        " /proc/sys/fs/binfmt_misc/register $(find /sys/fs/cgroup -name release_agent 2>/dev/null); do"
        ' test -e "$f" && echo "|/x" > "$f" && echo "WRITTEN $f"; done; echo end'
    )
    assert run(script).out == "end\n"


def _is_masked(path: str) -> bool:
    return path in ("/proc/keys", "/proc/kcore", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats")


@pytest.mark.parametrize(
    "remount",
    [
        "mount -o remount,rw /proc/sys", "mount -o remount,rw /sys", "mount -t proc p /tmp", "mount -t sysfs s /tmp",
        "mount -t cgroup -o memory c /tmp", "mount -t cgroup2 c /tmp", "umount /proc/sys", "umount -l /proc",
        "mount --bind /proc/1/root /tmp", "mount -t devtmpfs d /tmp", "mount -t debugfs d /tmp",
        "mount --move /sys /tmp",
    ],
)  # fmt: skip
def test_what_is_masked_cannot_be_mounted_anew(run: Run, remount: str) -> None:
    """CVE-2022-0492 begins so, too."""
    outcome = run(f"{remount} && echo MOUNTED")
    assert "MOUNTED" not in outcome.out
    assert outcome.result.exit_status != 0


def test_the_disks_of_the_host_cannot_be_opened(run: Run) -> None:
    """mknod is allowed, as in Docker; opening what it makes is not, wherever it is made."""
    numbers = {(stat.S_IFBLK, *_device(path)) for path in Path("/dev").glob("[svl]*[a-z0-9]") if path.is_block_device()}
    numbers |= {
        (stat.S_IFBLK, 8, 0),
        (stat.S_IFBLK, 7, 0),
        (stat.S_IFCHR, 1, 1),
        (stat.S_IFCHR, 1, 11),
        (stat.S_IFCHR, 10, 229),
    }
    lines = [
        f"mknod {place}/n {'b' if kind == stat.S_IFBLK else 'c'} {major} {minor} 2>/dev/null"
        f" && head -c 1 {place}/n > /dev/null 2>&1 && echo OPENED {major}:{minor} in {place}; rm -f {place}/n"
        for kind, major, minor in sorted(numbers)
        for place in ("/tmp", "/dev", "/dev/shm", "/etc")
    ]
    assert run("\n".join([*lines, "echo end"])).out == "end\n"


def _device(path: Path) -> tuple[int, int]:
    device = path.stat().st_rdev
    return os.major(device), os.minor(device)


# --- mounts of the step, and links in their way


@pytest.fixture
def swapping(tmp_path: Path, canary: Path) -> Iterator[Path]:
    """A directory, writable for other steps, in which `a` is now a directory and now a link to the host's."""
    cache = tmp_path / "cache"
    (cache / "real").mkdir(parents=True)
    (cache / "real/secret").write_text("of the cache")
    (cache / "link").symlink_to(canary)
    (cache / "a").symlink_to("real")
    ended = threading.Event()

    def swap() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            temporary = cache / f"n{number}"
            temporary.symlink_to(canary if number % 2 else "real")
            temporary.rename(cache / "a")

    thread = threading.Thread(target=swap)
    thread.start()
    yield cache
    ended.set()
    thread.join()


def test_a_race_for_a_mounts_source(run: Run, swapping: Path) -> None:
    """CVE-2024-23651: another step that shares a cache mount replaces what lies below its root while it is mounted."""
    seen = set()
    for _ in range(60):
        outcome = run("cat /m/secret", mounts=(Mount("/m", source=str(swapping), subpath="a"),))
        seen.add(outcome.out)
    assert "of the host" not in seen
    assert "of the cache" in seen


def test_a_race_for_a_mounts_target(run: Run, swapping: Path, canary: Path) -> None:
    """CVE-2021-30465: the target's parents lie in another mount, in which they are replaced meanwhile."""
    for _ in range(60):
        run(
            "echo x > /m/a/t/f; true",
            mounts=(Mount("/m", source=str(swapping), read_only=False), Mount("/m/a/t", "tmpfs", read_only=False)),
        )
    assert sorted(path.name for path in canary.iterdir()) == ["secret"]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_cleaning_up_mount_points_reaches_nothing_outside(run: Run, tmp_path: Path, canary: Path, kind: str) -> None:
    """CVE-2024-23652: the step replaces a parent of a mount point by a link; then the mount point is removed. Only
    inside another mount can it do so: overlayfs renames no directory of a lower layer."""
    (tmp_path / "cache/a").mkdir(parents=True)
    mount = Mount("/m/a/point", "tmpfs", read_only=False)
    if kind == "file":
        (canary / "point").write_text("")
        mount = Mount("/m/a/point", "file", content=b"x")
    else:
        (canary / "point").mkdir()
    script = f"mv /m/a /m/b && ln -s {canary} /m/a; readlink /m/a"
    outcome = run(script, mounts=(Mount("/m", source=str(tmp_path / "cache"), read_only=False), mount))
    assert outcome.out == f"{canary}\n"
    assert (canary / "point").exists()
    assert (canary / "secret").read_text() == "of the host"


@pytest.mark.parametrize("replace", ["rm -rf /new", "rmdir /new", "mv /new /moved && ln -s / /new"])
def test_the_parents_of_a_mount_point_stay(run: Run, replace: str) -> None:
    outcome = run(f"({replace}) 2> /dev/null; test -d /new/point && echo still", mounts=(Mount("/new/point", "tmpfs"),))
    assert outcome.out == "still\n"


def test_generated_files_do_not_follow_links(run: Run, busybox: Path, tmp_path: Path, canary: Path) -> None:
    """/etc/resolv.conf and /etc/hosts of a hostile image are links to files of the host."""
    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc/resolv.conf").symlink_to(canary / "secret")
    (layer / "etc/hosts").symlink_to(f"../../../../../../../..{canary}/secret")
    outcome = run("cat /etc/hosts", hosts="h\n", resolv_conf="r\n", lowers=(str(layer), str(busybox)))
    assert "of the host" not in outcome.out
    assert (canary / "secret").read_text() == "of the host"


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "dev/shm", "etc"])
def test_links_in_place_of_system_directories(run: Run, busybox: Path, tmp_path: Path, canary: Path, name: str) -> None:
    """CVE-2019-19921 and others: what should be masked or generated lies somewhere else."""
    layer = tmp_path / "layer"
    (layer / name).parent.mkdir(parents=True, exist_ok=True)
    (layer / name).symlink_to(canary)
    run("true; touch /dev/shm/x /etc/x", hosts="h\n", resolv_conf="r\n", lowers=(str(layer), str(busybox)))
    assert sorted(path.name for path in canary.iterdir()) == ["secret"]


# --- what is shared by a name


@x86_64
def test_abstract_sockets_of_the_host(run: Run) -> None:
    """CVE-2020-15257: containerd listened on one."""
    name = f"builder-security-{os.getpid()}".encode()
    address = struct.pack("<H", socket.AF_UNIX) + b"\0" + name
    tries = (("socket", (41, 1, 1, 0)), ("connect", (42, 3, address, len(address))))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(b"\0" + name)
        server.listen()
        assert calls(run, *tries, network="none")["connect"] == errno.ECONNREFUSED
        shared = calls(run, *tries, network="host")["connect"]
        assert shared == (errno.EPERM if landlock.is_able() else 0)  # what sharing the host's network means


@x86_64
def test_shared_memory_of_the_host(run: Run) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x62000000 | os.getpid()
    segment = libc.shmget(key, 4096, 0o1666)
    assert segment >= 0
    try:
        assert calls(run, ("shmget", (29, key, 0, 0)))["shmget"] == errno.ENOENT
    finally:
        libc.shmctl(segment, 0, None)


def test_keys_of_the_host(run: Run) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    name = f"builder-security-{os.getpid()}".encode()
    key = libc.syscall(248, b"user", name, b"payload", 7, -5) if platform.machine() == "x86_64" else -1
    if key < 0:
        pytest.skip("no key can be added here")
    assert name.decode() in Path("/proc/keys").read_text()
    assert run("cat /proc/keys /proc/key-users 2> /dev/null | grep -c builder-security").out == "0\n"


def test_variables_of_the_builder(tmp_path: Path) -> None:
    """By the real command: neither the step's environment nor any process that it sees has them."""
    cli = Cli(tmp_path / "store", AWS_SECRET_ACCESS_KEY="kept-to-itself", BUILDER_X="kept-to-itself")
    made = busybox_context(tmp_path / "c", "FROM base\nRUN env; cat /proc/*/environ | tr '\\0' '\\n'\n")
    done = cli.build("--no-cache", made)
    assert "kept-to-itself" not in done.err
    assert "PATH=/bin" in done.err


def test_writes_end_in_the_layer(tmp_path: Path, canary: Path) -> None:
    """By the real command, with every name under which the host's directory might be reached."""
    ways = " ".join(f"{way}{canary}/written" for way in ("", "/..", "/proc/1/root", "/proc/self/cwd/../.."))
    script = f"RUN for f in {ways}; do mkdir -p ${{f%/*}} 2> /dev/null; echo x > $f; done; true\n"
    cli = Cli(tmp_path / "store")
    cli.build("-t", "app", busybox_context(tmp_path / "c", f"FROM base\n{script}"))
    assert sorted(path.name for path in canary.iterdir()) == ["secret"]
    assert str(canary / "written").lstrip("/") in cli.files("app")


# --- limits


def test_limits_of_the_command_line_reach_the_step(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    made = busybox_context(tmp_path / "c", "FROM base\nRUN ulimit -n; ulimit -f\n")
    done = cli.build("--ulimit", "nofile=123:123", "--ulimit", "fsize=4096", made)
    assert [line.rsplit(" ", 1)[1] for line in done.err.splitlines() if line.endswith((" 123", " 8"))] == ["123", "8"]
