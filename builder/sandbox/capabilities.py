"""Capabilities by name, and the set that Docker and BuildKit give to a step."""

from __future__ import annotations

from . import syscalls

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()

DEFAULT = frozenset(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD "
        "AUDIT_WRITE SETFCAP"
    ).split()
)

SYS_ADMIN = NAMES.index("SYS_ADMIN")


def held() -> int:
    """The effective capabilities of this process as a bit mask."""
    return _status_mask("CapEff:")


def has(capability: int) -> bool:
    """Whether a capability, by its number, is an effective one of this process."""
    return bool(held() >> capability & 1)


def bounding() -> int:
    """The bounding set of this process as a bit mask."""
    return _status_mask("CapBnd:")


def _status_mask(field: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1], 16)
    return 0


def mask(names: frozenset[str]) -> int:
    """The bit mask of `CAP_…` names."""
    return sum(1 << position for position, name in enumerate(NAMES) if f"CAP_{name}" in names)


def limit_bounding(present: int, keep: int) -> None:
    """Drop from the bounding set `present` what `keep` lacks: nothing executed from now on can gain it."""
    for position in range(present.bit_length()):
        if present >> position & 1 and not keep >> position & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, position)
