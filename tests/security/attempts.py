"""A program that tries system calls, one after the other, and writes down what each gave: a static ELF file of a few
hundred bytes for x86-64, made here by hand, since what is to be tried needs neither a compiler nor a C library."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

_BASE = 0x400000
_HEADERS = 64 + 56
_CALL = struct.Struct("<7q")
_LIMIT = -4096

Argument = int | bytes | tuple["Argument", ...]
Call = tuple[int, *tuple[Argument, ...]]
"""A call's number and its arguments; bytes stand for a pointer to them, a tuple for one to its values as words."""


def program(calls: Sequence[Call]) -> bytes:
    """The program. It writes one 56-byte record for each call, the first 8 bytes of which are the result."""
    loop = b"".join(
        (
            b"\x48\x8b\x03",  # mov rax, [rbx]
            b"\x48\x8b\x7b\x08\x48\x8b\x73\x10\x48\x8b\x53\x18",  # mov rdi, rsi, rdx
            b"\x4c\x8b\x53\x20\x4c\x8b\x43\x28\x4c\x8b\x4b\x30",  # mov r10, r8, r9
            b"\x0f\x05",  # syscall
            b"\x48\x89\x03",  # mov [rbx], rax
            b"\x48\x83\xc3\x38",  # add rbx, 56
            b"\x41\xff\xcc",  # dec r12d
        )
    )
    head = b"\x48\xbb%s\x41\xbc" + struct.pack("<I", len(calls))  # mov rbx, TABLE; mov r12d, COUNT
    size = len(calls) * _CALL.size
    tail = b"".join(
        (
            b"\xb8\x01\0\0\0\xbf\x01\0\0\0\x48\xbe%s\xba",  # mov eax, 1; mov edi, 1; mov rsi, TABLE; mov edx, SIZE
            struct.pack("<I", size),
            b"\x0f\x05\xb8\x3c\0\0\0\x31\xff\x0f\x05",  # syscall; mov eax, 60; xor edi, edi; syscall
        )
    )
    jump = b"\x75" + struct.pack("<b", -len(loop) - 2)  # jnz LOOP
    length = len(head) + len(loop) + len(jump) + len(tail) + 2 * (8 - 2)
    table = _BASE + _HEADERS + length
    pointer = struct.pack("<Q", table)
    code = head.replace(b"%s", pointer) + loop + jump + tail.replace(b"%s", pointer)
    assert len(code) == length
    data = bytearray()

    def value(argument: Argument) -> int:
        if isinstance(argument, int):
            return argument
        if isinstance(argument, tuple):
            words = [value(one) for one in argument]
            argument = struct.pack(f"<{len(words)}q", *words)
        place = table + size + len(data)
        data.extend(argument + bytes(16))
        return place

    records = b""
    for number, *arguments in calls:
        records += _CALL.pack(number, *map(value, arguments), *[0] * (6 - len(arguments)))
    body = code + records + data + bytes(4096)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, _HEADERS + len(body), _HEADERS + len(body), 4096)
    return header + segment + body


def results(output: bytes, names: Sequence[str]) -> dict[str, int]:
    """What the calls gave: an error's number where one failed, else 0 or less (a descriptor is its negative)."""
    found = {}
    for position, name in enumerate(names):
        value = _CALL.unpack_from(output, position * _CALL.size)[0]
        found[name] = -value if _LIMIT < value < 0 else -min(value, 1 << 20)
    return found


def numbered(calls: Mapping[str, tuple[Argument, ...]]) -> tuple[list[str], bytes]:
    """The names of calls, and the program that tries them; a name's first word is looked up in NUMBERS."""
    return list(calls), program([(NUMBERS[name.partition(" ")[0]], *arguments) for name, arguments in calls.items()])


NUMBERS = {
    "read": 0, "write": 1, "open": 2, "close": 3, "getpid": 39, "socket": 41, "connect": 42, "shmget": 29, "clone": 56,
    "kill": 62, "fcntl": 72, "chdir": 80, "fchdir": 81, "mkdir": 83, "chmod": 90, "umask": 95, "getuid": 102,
    "ptrace": 101, "syslog": 103, "mknod": 133, "uselib": 134, "personality": 135, "ustat": 136, "sysfs": 139,
    "mlock": 149, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155, "_sysctl": 156, "prctl": 157, "arch_prctl": 158,
    "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167,
    "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173,
    "create_module": 174, "init_module": 175, "delete_module": 176, "get_kernel_syms": 177, "query_module": 178,
    "quotactl": 179, "nfsservctl": 180, "gettid": 186, "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237,
    "set_mempolicy": 238, "get_mempolicy": 239, "mq_open": 240, "kexec_load": 246, "add_key": 248, "request_key": 249,
    "keyctl": 250, "inotify_init": 253, "migrate_pages": 256, "openat": 257, "mkdirat": 258, "unshare": 272,
    "move_pages": 279, "epoll_create1": 291, "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "finit_module": 313, "sched_setattr": 314, "seccomp": 317, "getrandom": 318, "memfd_create": 319,
    "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "membarrier": 324, "pkey_alloc": 330, "statx": 332,
    "rseq": 334, "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439,
    "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "landlock_create_ruleset": 444,
    "set_mempolicy_home_node": 450,
}  # fmt: skip
