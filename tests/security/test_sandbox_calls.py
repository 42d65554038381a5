"""The seccomp filter, in effect: system calls tried from a step."""

from __future__ import annotations

import errno
import platform

import pytest

from builder.sandbox.command import Mount
from tests.sandbox.outcome import Run
from tests.security.attempts import Argument, numbered, results
from tests.support.builds import needs_sandbox

pytestmark = [
    needs_sandbox,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="runs a program that is built for x86-64"),
]

Calls = dict[str, tuple[Argument, ...]]

# What Docker's default profile keeps from containers with the default capabilities. The arguments do no harm if the
# filter should let them through.
REFUSED: Calls = dict.fromkeys(
    (
        "syslog", "uselib", "ustat", "sysfs", "vhangup", "_sysctl", "iopl", "ioperm", "create_module", "delete_module",
        "get_kernel_syms", "query_module", "quotactl", "nfsservctl", "lookup_dcookie", "mbind", "set_mempolicy",
        "get_mempolicy", "migrate_pages", "move_pages", "perf_event_open", "fanotify_init", "open_by_handle_at",
        "setns", "kcmp", "finit_module", "kexec_file_load", "bpf", "userfaultfd", "io_uring_setup", "io_uring_enter",
        "io_uring_register", "open_tree", "fsconfig", "fsmount", "fspick", "pidfd_getfd", "process_madvise",
        "mount_setattr", "quotactl_fd", "set_mempolicy_home_node", "keyctl", "add_key", "request_key", "move_mount",
    ),
    (-1, 0, 0, 0, 0),
)  # fmt: skip
REFUSED |= {
    "acct": (b"/nothing",), "settimeofday": (0, 0), "clock_settime": (-1, 0), "mount": (b"t", b"/tmp", b"tmpfs", 0, 0),
    "umount2": (b"/proc", 2), "swapon": (b"/nothing", 0), "swapoff": (b"/nothing",), "reboot": (0, 0, 0),
    "sethostname": (b"x", 1), "setdomainname": (b"x", 1), "init_module": (0, 0, b""), "pivot_root": (b"/tmp", b"/tmp"),
    "kexec_load": (0, -1, 0, 0), "unshare user": (0x10000000,), "unshare mounts": (0x20000,), "unshare network":
    (0x40000000,), "fsopen": (b"tmpfs", 0), "clone user": (0x10000000,), "clone mounts": (0x20000,),
    "personality of others": (4,), "socket vsock": (40, 1, 0), "socket alg": (38, 5, 0),
}  # fmt: skip

# What programs need, and what Docker allows: each fails, if at all, with an error of the call itself.
ALLOWED: Calls = {
    "read": (-1, 0, 0), "write": (-1, 0, 0), "open": (0, 0), "close": (-1,), "getpid": (), "socket unix": (1, 1, 0),
    "socket inet": (2, 1, 0), "socket netlink": (16, 3, 0), "shmget": (0, 4096, 0o600), "kill": (1, 0),
    "fcntl": (0, 1), "mkdir": (0, 0), "chmod": (0, 0), "umask": (0o22,), "ptrace": (2, -1, 0, 0), "mknod": (0, 0, 0),
    "personality": (0xFFFFFFFF,), "mlock": (0, 0), "modify_ldt": (0, 0, 0), "prctl": (3,), "arch_prctl": (0x1003, 0),
    "adjtimex": (0,), "chroot": (0,), "gettid": (), "mq_open": (0, 0), "inotify_init": (), "openat": (-1, 0, 0),
    "epoll_create1": (0,), "name_to_handle_at": (-1, 0, 0, 0, 0), "process_vm_readv": (-1, 0, 0, 0, 0, 0),
    "process_vm_writev": (-1, 0, 0, 0, 0, 0), "sched_setattr": (0, 0, 0), "seccomp": (-1, 0, 0), "getrandom": (0, 0, 0),
    "memfd_create": (0, 0), "membarrier": (0, 0), "pkey_alloc": (-1, 0),
    "statx": (-1, 0, 0, 0, 0), "rseq": (0, 0, 0, 0),
    "pidfd_send_signal": (-1, 0, 0, 0), "pidfd_open": (-1, 0), "close_range": (900, 1000, 0), "openat2": (-1, 0, 0, 0),
    "faccessat2": (-1, 0, 0, 0), "landlock_create_ruleset": (0, 0, 1),
}  # fmt: skip


def attempt(run: Run, calls: Calls, **fields: object) -> dict[str, int]:
    names, code = numbered(calls)
    mounts = (*fields.pop("mounts", ()), Mount("/attempt", "file", content=code, mode=0o755))  # type: ignore[misc]
    outcome = run("/attempt | od -An -v -tx1", mounts=mounts, **fields)
    assert outcome.result.exit_status == 0, outcome
    return results(bytes.fromhex(outcome.out), names)


def test_what_docker_refuses_is_refused(run: Run) -> None:
    assert {name: error for name, error in attempt(run, REFUSED).items() if error != errno.EPERM} == {}


def test_without_the_filter_these_attempts_would_show_it(run: Run) -> None:
    """The same program in an insecure step, where nothing is filtered: the table above can fail."""
    harmless = {name: REFUSED[name] for name in ("keyctl", "add_key", "userfaultfd", "bpf", "get_mempolicy", "sysfs")}
    assert errno.EPERM not in attempt(run, harmless, security="insecure").values()


def test_what_docker_allows_is_allowed(run: Run) -> None:
    found = attempt(run, ALLOWED)
    assert {name: error for name, error in found.items() if error in (errno.EPERM, errno.ENOSYS)} == {}


def test_programs_fall_back_from_what_is_too_new_to_judge(run: Run) -> None:
    assert attempt(run, {"clone3": (0, 0)}) == {"clone3": errno.ENOSYS}


def test_users_other_than_root_are_filtered_too(run: Run) -> None:
    found = attempt(
        run, {name: REFUSED[name] for name in ("bpf", "keyctl", "unshare user", "mount")}, uid=1000, gid=1000
    )
    assert set(found.values()) == {errno.EPERM}
