"""A seccomp filter equal in effect to Docker's default profile, assembled as classic BPF.

What it does beyond the list of allowed calls (`seccomp_table.py`), after runc and libseccomp:
- calls not listed fail with EPERM, those newer than every call in the table with ENOSYS, so that programs fall back;
- `clone` may make no namespaces, and `clone3`, whose flags are behind a pointer, fails with ENOSYS;
- `socket` refuses the address families AF_ALG and AF_VSOCK, `personality` has a list of harmless values;
- the second ABIs of the processor (i386 and x32; 32-bit ARM) have their own numbers; any other ABI kills the process.
Numbers are looked up by a binary search over ranges. The kernel caches the calls that are always allowed in a bit map.

In two things it differs on purpose. Of `socket`'s family only the 32 bits are compared that the kernel looks at:
Docker's rules compare all 64, so that a family with a bit set above them passes. And `ptrace` and its like, by which a
process could escape a filter before Linux 4.8, are allowed without asking for the version: the sandbox needs a newer
kernel.
"""

from __future__ import annotations

import struct

from .seccomp_table import ABIS, TABLE

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL_PROCESS = 0x80000000
_EPERM, _ENOSYS = _ERRNO | 1, _ERRNO | 38

_LOAD, _JUMP, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT_LOW, _ARGUMENT_HIGH = 0, 4, 16, 20

_AUDIT = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
_X32_BIT = 0x40000000
_ARM_PRIVATE = 0x0F0000

# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_NAMESPACE_FLAGS = 0x7E020000
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_REFUSED_FAMILIES = (38, 40)  # AF_ALG, AF_VSOCK

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself costs the helper 10 ms
    from typing import TypeAlias

    Code: TypeAlias = list[tuple[int, int, int, int]]


def _return(action: int) -> Code:
    return [(_RETURN, 0, 0, action)]


def _if_number_below(limit: int, below: Code, otherwise: Code) -> Code:
    """Branch on the loaded number; jumps of one instruction reach 255, so a longer one takes a detour."""
    if len(below) <= 255:
        return [(_JUMP_GREATER_EQUAL, len(below), 0, limit), *below, *otherwise]
    return [(_JUMP_GREATER_EQUAL, 0, 1, limit), (_JUMP, 0, 0, len(below)), *below, *otherwise]


def _only_values(values: tuple[int, ...]) -> Code:
    """Allow a call if its first argument, all 64 bits of it, is one of `values`."""
    code = [(_LOAD, 0, 0, _ARGUMENT_HIGH), (_JUMP_EQUAL, 1, 0, 0), *_return(_EPERM), (_LOAD, 0, 0, _ARGUMENT_LOW)]
    for position, value in enumerate(values):
        code.append((_JUMP_EQUAL, len(values) - position, 0, value))
    return [*code, *_return(_EPERM), *_return(_ALLOW)]


def _all_but(values: tuple[int, ...]) -> Code:
    """Allow a call unless its first argument, of which the kernel takes 32 bits, is one of `values`."""
    code = [(_LOAD, 0, 0, _ARGUMENT_LOW)]
    for position, value in enumerate(values):
        code.append((_JUMP_EQUAL, len(values) - position, 0, value))
    return [*code, *_return(_ALLOW), *_return(_EPERM)]


def _no_namespaces() -> Code:
    return [(_LOAD, 0, 0, _ARGUMENT_LOW), (_JUMP_SET, 0, 1, _NAMESPACE_FLAGS), *_return(_EPERM), *_return(_ALLOW)]


def _rules(capabilities: frozenset[str]) -> list[tuple[list[str], Code]]:
    """The rows of the table that apply, each with what to do."""
    by_argument = {
        "clone": _no_namespaces(),
        "clone3": _return(_ENOSYS),
        "personality": _only_values(_PERSONALITIES),
        "socket": _all_but(_REFUSED_FAMILIES),
    }
    allow = _return(_ALLOW)
    rules: list[tuple[list[str], Code]] = []
    section = ""
    for line in TABLE.splitlines():
        if line[0] == "[":
            section = line[1:-1]
        elif section == "arguments":
            row = line.split()
            rules.append((row, by_argument[row[0]]))
        elif not section.startswith("CAP_") or section in capabilities:
            rules.append((line.split(), allow))
    return rules


def _search(rules: list[tuple[list[str], Code]], abi: str) -> Code:
    """The binary search of one ABI, with the call's number loaded."""
    column = 1 + ABIS.index(abi)
    offset = _X32_BIT if abi == "x32" else 0
    actions = {int(row[column]) + offset: code for row, code in rules if row[column] != "-"}
    newest = max(number for number in actions if number - offset < _ARM_PRIVATE)
    refuse, unknown = _return(_EPERM), _return(_ENOSYS)
    starts: list[tuple[int, Code]] = [(0, refuse)]
    for number in sorted(actions):
        if starts[-1][0] == number:
            starts.pop()
        if not starts or starts[-1][1] != actions[number]:
            starts.append((number, actions[number]))
        starts.append((number + 1, unknown if number >= newest else refuse))
    return _tree([start for i, start in enumerate(starts) if i == 0 or starts[i - 1][1] is not start[1]])


def _tree(starts: list[tuple[int, Code]]) -> Code:
    if len(starts) == 1:
        return starts[0][1]
    middle = len(starts) // 2
    return _if_number_below(starts[middle][0], _tree(starts[:middle]), _tree(starts[middle:]))


def build_filter(capabilities: frozenset[str], machine: str) -> bytes:
    """The filter for a step that holds `capabilities` (`CAP_…` names) on `machine` (`x86_64` or `aarch64`)."""
    rules = _rules(capabilities)
    load = (_LOAD, 0, 0, _NUMBER)
    main = _search(rules, machine)
    if machine == "x86_64":
        main = _if_number_below(_X32_BIT, main, _search(rules, "x32"))
    second = "i386" if machine == "x86_64" else "arm"
    main = [load, *main]
    other = [
        (_JUMP_EQUAL, 1, 0, _AUDIT[second]),
        *_return(_KILL_PROCESS),
        load,
        *_search(rules, second),
    ]
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, _AUDIT[machine]),
        (_JUMP, 0, 0, len(main)),
        *main,
        *other,
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
