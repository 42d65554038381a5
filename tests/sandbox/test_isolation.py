"""What a step cannot see or do. Each test fails without the protection that it names."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from builder.sandbox.client import Sandbox
from builder.sandbox.command import Mount
from tests.sandbox.outcome import Run


def test_capabilities_of_root(run: Run) -> None:
    outcome = run("grep ^Cap /proc/self/status")
    default, none = "00000000a80425fb", "0" * 16
    assert [line.split()[1] for line in outcome.lines] == [none, default, default, default, none]


def test_capabilities_of_others(run: Run) -> None:
    outcome = run("grep ^Cap /proc/self/status", uid=1000, gid=1000)
    default, none = "00000000a80425fb", "0" * 16
    assert [line.split()[1] for line in outcome.lines] == [none, none, none, default, none]


def test_seccomp_is_on_and_new_privileges_are_possible(run: Run) -> None:
    outcome = run("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status")
    assert outcome.lines == ["NoNewPrivs:\t0", "Seccomp:\t2"]


def test_insecure(run: Run) -> None:
    script = "grep -E '^(CapEff|Seccomp):' /proc/self/status; mount -t tmpfs t /tmp && echo ok"
    outcome = run(script, security="insecure")
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert [line.split()[-1] for line in outcome.lines] == [held.split()[1], "0", "ok"]


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /tmp", "mount --bind /bin /tmp", "umount /proc", "umount /sys/firmware", "unshare -m true",
        "unshare -U true", "hostname x", "nsenter -t 1 -m true", "mount -o remount,rw /proc/sys",
    ],
)  # fmt: skip
def test_mounts_and_namespaces_are_refused(run: Run, attempt: str) -> None:
    outcome = run(attempt)
    assert outcome.result.exit_status != 0
    assert "ermitted" in outcome.err or "denied" in outcome.err or "must be superuser" in outcome.err


@pytest.mark.parametrize(
    "path",
    ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"],
)
def test_kernel_settings_cannot_be_written(run: Run, path: str) -> None:
    assert run(f"test -e {path} || exit 0; echo x > {path}").result.exit_status == (1 if os.path.exists(path) else 0)


def test_masked_files_are_empty(run: Run) -> None:
    files = "/proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts /proc/latency_stats"
    outcome = run(f"cat {files} 2> /dev/null; ls -A /sys/firmware /proc/acpi /proc/scsi 2> /dev/null | grep -v :")
    assert outcome.out.strip() == ""


def test_devices(run: Run) -> None:
    use = "cat null; head -c 2 zero | wc -c; head -c 2 urandom | wc -c; echo x > full || echo full"
    outcome = run(f"cd /dev; ls; {use}")
    assert outcome.lines == [
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero", "2", "2", "full",
    ]  # fmt: skip


def test_device_nodes_can_be_made_but_not_opened(run: Run, tmp_path: Path) -> None:
    outcome = run(
        "mkdir /n; for d in /n /dev /dev/shm /tmp /m; do mknod $d/b b 7 0 && mknod $d/mem c 1 1;"
        " cat $d/b 2>/dev/null && echo open; cat $d/mem 2>/dev/null && echo open; done; echo done",
        mounts=(Mount("/m", source=str(tmp_path), read_only=False),),
    )
    assert outcome.out == "done\n"
    assert stat.S_ISBLK((outcome.upper / "n/b").stat().st_mode)


def test_changes_to_devices_stay_inside(run: Run) -> None:
    before = os.stat("/dev/null")
    assert run("chmod 0 /dev/null; chown 5 /dev/null; stat -c %u /dev/null").out == "5\n"
    assert os.stat("/dev/null") == before


def test_shm_size(run: Run) -> None:
    outcome = run("dd if=/dev/zero of=/dev/shm/f bs=1M count=3 2>/dev/null || echo full", shm_size=1 << 20)
    assert outcome.out == "full\n"


def test_no_inherited_descriptors(run: Run) -> None:
    with open(__file__) as held:
        os.set_inheritable(held.fileno(), True)
        outcome = run("ls /proc/1/fd; true")
    assert outcome.lines == ["0", "1", "2"]


def test_processes_of_the_host_are_not_seen(run: Run) -> None:
    outcome = run("for p in /proc/[0-9]*; do echo ${p##*/}; done; kill -0 $PPID; echo $PPID")
    assert outcome.lines == ["1", "0"]


def test_environment_of_the_builder_is_not_seen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    with Sandbox() as fresh:
        outcome = run("cat /proc/*/environ | tr '\\0' '\\n'; env", by=fresh)
    assert "s3cret" not in outcome.out


def test_mounts_of_the_host_are_not_seen(run: Run, tmp_path: Path) -> None:
    outcome = run("cat /proc/self/mountinfo", hosts="h\n", mounts=(Mount("/t", "tmpfs"),))
    assert str(tmp_path) not in outcome.out
    assert not any(word in outcome.out for word in ("ext4", "xfs", "btrfs"))


def test_network_none_has_only_a_loopback_that_is_up(run: Run) -> None:
    outcome = run("ls /sys/class/net; ping -c 1 -W 2 127.0.0.1 > /dev/null && echo up", network="none")
    assert outcome.lines == ["lo", "up"]


def test_abstract_sockets_are_not_reached_without_network(run: Run) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(b"\0builder-test-abstract")
        assert "builder-test-abstract" not in run("cat /proc/net/unix", network="none").out


def test_host_network_is_shared(run: Run) -> None:
    assert sorted(run("ls /sys/class/net", network="host").lines) == sorted(os.listdir("/sys/class/net"))


def test_hostname_is_its_own(run: Run) -> None:
    before = os.uname().nodename
    assert run("hostname").out == "buildkitsandbox\n"
    assert run("hostname", hostname="other").out == "other\n"
    assert os.uname().nodename == before


def test_there_is_nothing_above_the_root(run: Run) -> None:
    outcome = run("cd /; for d in / /.. ../..; do stat -c %i $d; done | sort -u | wc -l; ls -d ../../work 2> /dev/null")
    assert outcome.lines == ["1"]


@pytest.mark.parametrize("directory", ["/proc/self/fd/3", "/proc/self/fd/7/..", "/proc/1/root", "/proc/self/cwd"])
def test_working_directory_cannot_be_a_descriptor(run: Run, directory: str) -> None:
    """CVE-2024-21626."""
    result = run("pwd", directory=directory).result
    assert result.error.startswith(f"working directory {directory}:")


def test_linked_working_directory_stays_in_the_root(run: Run, busybox: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "out").symlink_to("../../../../../..")
    outcome = run("ls -d bin/busybox; pwd", directory="/out", lowers=(str(layer), str(busybox)))
    assert outcome.lines == ["bin/busybox", "/"]


@pytest.mark.parametrize("program", ["/proc/self/exe", "/evil", "/script"])
def test_the_interpreter_cannot_be_changed_through_proc(
    run: Run, sandbox: Sandbox, busybox: Path, tmp_path: Path, program: str
) -> None:
    """CVE-2019-5736: a program that is a link to /proc/self/exe is the helper's interpreter, on the host."""
    interpreter = Path(os.path.realpath(sys.executable))
    before = interpreter.stat().st_ctime_ns
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "evil").symlink_to("/proc/self/exe")
    (layer / "script").write_text("#!/proc/self/exe\n")
    (layer / "script").chmod(0o755)
    outcome = run((program, "-I", "-S", "-c", "pass"), lowers=(str(layer), str(busybox)))
    assert outcome.result.exit_status != 0  # it finds no loader or no library in the image
    assert interpreter.stat().st_ctime_ns == before
    # What it runs from cannot be changed even by somebody who holds it.
    helper = sandbox._pid
    with pytest.raises(OSError, match="Read-only"):
        os.chmod(f"/proc/{helper}/exe", 0o4755)
    with pytest.raises(OSError, match=r"Read-only|Text file busy"):
        os.open(f"/proc/{helper}/exe", os.O_WRONLY)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="makes system calls by the numbers of x86-64")
def test_filter_by_calls(tmp_path: Path) -> None:
    """The filter itself, in a child of this process: each call that Docker's profile decides by an argument."""
    from builder.sandbox import capabilities, syscalls
    from builder.sandbox.seccomp import build_filter

    program = build_filter(capabilities.DEFAULT, "x86_64")
    libc = ctypes.CDLL(None, use_errno=True)

    def number(call: int, *arguments: int) -> int:
        padded = [ctypes.c_ulong(value) for value in (*arguments, *[0] * (6 - len(arguments)))]
        result = libc.syscall(ctypes.c_long(call), *padded)
        return ctypes.get_errno() if result < 0 else 0

    expected = {
        "personality(0xffffffff)": 0, "personality(4)": 1, "personality(high bits)": 1, "socket(unix)": 0,
        "socket(vsock)": 1, "socket(alg)": 1, "clone(newuser)": 1, "unshare": 1, "clone3": 38, "keyctl": 1, "bpf": 1,
        "io_uring_setup": 1, "perf_event_open": 1, "getpid": 0, "newer than all": 38, "x32 getpid": 38,
        "kexec_load": 1, "open_by_handle_at": 1, "userfaultfd": 1, "mount": 1, "x32 mount": 1,
    }  # fmt: skip
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            syscalls.install_filter(program)
            found = {
                "personality(0xffffffff)": number(135, 0xFFFFFFFF), "personality(4)": number(135, 4),
                "personality(high bits)": number(135, 0x1_0000_0000), "socket(unix)": number(41, 1, 1, 0),
                "socket(vsock)": number(41, 40, 1, 0), "socket(alg)": number(41, 38, 5, 0),
                "clone(newuser)": number(56, 0x10000000), "unshare": number(272, 0x20000), "clone3": number(435, 0, 0),
                "keyctl": number(250, 0, -3 & 0xFFFFFFFF, 0), "bpf": number(321, 0), "io_uring_setup": number(425, 1),
                "perf_event_open": number(298), "getpid": number(39), "newer than all": number(600),
                "x32 getpid": number(0x40000000 + 39), "kexec_load": number(246), "open_by_handle_at": number(304),
                "userfaultfd": number(323), "mount": number(165), "x32 mount": number(0x40000000 + 165),
            }  # fmt: skip
            found["x32 getpid"] = found["x32 getpid"] or 38  # allowed; whether it exists depends on the kernel
            os.write(write, repr(found).encode())
        finally:
            os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert eval(os.read(read, 65536)) == expected


def test_core_of_the_filter_on_every_machine() -> None:
    from builder.sandbox.seccomp import build_filter

    for machine in ("x86_64", "aarch64"):
        program = build_filter(frozenset({"CAP_SYS_ADMIN"}), machine)
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4096


def test_inside_a_user_namespace(run: Run, busybox: Path) -> None:
    """As uid 0 of a namespace with a single id: no device nodes, no `trusted.` attributes, somebody else's /sys."""
    script = "id -u; touch /tmp/x; echo x > /dev/null && ls -d /sys/class; mount -t tmpfs t /tmp || echo no"
    command = [sys.executable, "-m", "builder.sandbox", "--lower", str(busybox), "--", "/bin/sh", "-c", script]
    outside = subprocess.run(["unshare", "-Ur", "true"], capture_output=True)
    if outside.returncode != 0:
        pytest.skip("user namespaces are not available")
    done = subprocess.run(["unshare", "-Ur", *command], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split() == ["0", "/sys/class", "no"], done.stderr


def test_without_privilege_it_says_what_is_missing(run: Run, busybox: Path) -> None:
    command = [sys.executable, "-m", "builder.sandbox", "--lower", str(busybox), "--", "true"]
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-all", *command],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    if "setpriv" in done.stderr:
        pytest.skip("setpriv cannot drop capabilities here")
    assert done.returncode == 1
    assert done.stderr.startswith("error: running a command needs root: this container lacks CAP_SYS_ADMIN")


def test_signals_that_the_builder_ignores_or_blocks(run: Run) -> None:
    """As under nohup(1): a shell could not trap what was ignored when it started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        with Sandbox() as own:
            out = run("grep -E 'SigBlk|SigIgn' /proc/self/status; trap 'echo trapped' HUP; kill -HUP $$", by=own).out
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    blocked, ignored, trapped = out.splitlines()
    reserved = 0x1_8000_0000  # by the C library, out of everybody's reach
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & ~reserved == 0
    assert trapped == "trapped"
