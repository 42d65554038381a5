"""An interpreter of classic BPF as seccomp(2) runs it (linux/filter.h, linux/seccomp.h), to try filters out for every
processor without making a single call."""

from __future__ import annotations

import struct

ALLOW = "allow"
KILL = "kill"
EPERM = "EPERM"
ENOSYS = "ENOSYS"

AUDIT = {
    "x86_64": 0xC000003E, "i386": 0x40000003, "x32": 0xC000003E, "aarch64": 0xC00000B7, "arm": 0x40000028,
    "riscv64": 0xC00000F3,
}  # fmt: skip
X32_BIT = 0x40000000

_VERDICTS = {0x7FFF0000: ALLOW, 0x80000000: KILL, 0x00050001: EPERM, 0x00050026: ENOSYS}
_MOST = 4096  # instructions that the kernel takes


class Filter:
    """A filter program, checked as the kernel checks it: it ends, and reads nothing but whole words of its input."""

    def __init__(self, program: bytes) -> None:
        assert len(program) % 8 == 0
        self._code = list(struct.iter_unpack("=HBBI", program))
        assert 0 < len(self._code) <= _MOST
        for position, (operation, when_true, when_false, value) in enumerate(self._code):
            left = len(self._code) - position - 1
            match operation:
                case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                    assert value % 4 == 0
                    assert value < 64
                case 0x05:  # BPF_JMP | BPF_JA
                    assert value < left
                case 0x15 | 0x35 | 0x45:  # BPF_JEQ, BPF_JGE, BPF_JSET, each with BPF_K
                    assert max(when_true, when_false) < left
                case 0x06:  # BPF_RET | BPF_K
                    assert value in _VERDICTS
                case _:
                    raise AssertionError(f"instruction {position} has the unknown operation {operation:#x}")
        assert self._code[-1][0] == 0x06

    def verdict(self, abi: str, number: int, *arguments: int) -> str:
        """What becomes of a call of an ABI (`AUDIT` names them): its number, and its arguments as 64 bits."""
        number |= X32_BIT if abi == "x32" else 0
        padded = (*arguments, *[0] * (6 - len(arguments)))
        data = struct.pack("<iIQ6Q", number - (1 << 32 if number >> 31 else 0), AUDIT[abi], 0x1234, *padded)
        accumulator = position = 0
        while True:
            operation, when_true, when_false, value = self._code[position]
            position += 1
            match operation:
                case 0x20:
                    (accumulator,) = struct.unpack_from("<I", data, value)
                case 0x05:
                    position += value
                case 0x15:
                    position += when_true if accumulator == value else when_false
                case 0x35:
                    position += when_true if accumulator >= value else when_false
                case 0x45:
                    position += when_true if accumulator & value else when_false
                case _:
                    return _VERDICTS[value]
