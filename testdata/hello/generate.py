"""Writes the two programs of the first image: static ELF files of a few hundred bytes, assembled here by hand.

    python testdata/hello/generate.py

Each prints `Hello from SYSTEM on MACHINE ARGUMENTS…` (the first two as uname(2) gives them) and exits with 0. The
output is the same wherever this runs; a test compares it with the files beside this one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

BASE = 0x400000
HEADERS = 64 + 2 * 56
EM_X86_64, EM_AARCH64 = 62, 183
MACHINE = 4 * 65  # where utsname has it: after sysname, nodename, release and version, 65 bytes each
ROOM = 400  # for a utsname, a multiple of 16

STRINGS = {"greeting": b"Hello from \0", "on": b" on \0", "space": b" \0", "newline": b"\n\0"}

Fixup = Callable[[int], bytes]


class Assembler:
    """Instructions and labels in order. A fixup gets the distance from its own address to its label."""

    def __init__(self) -> None:
        self._pieces: list[bytes | tuple[str, Fixup]] = []
        self._labels: dict[str, int] = {}
        self._size = 0

    def label(self, name: str) -> None:
        self._labels[name] = self._size

    def code(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)

    def reference(self, label: str, fixup: Fixup) -> None:
        self._pieces.append((label, fixup))
        self._size += len(fixup(0))

    def finish(self) -> bytes:
        for name, text in STRINGS.items():
            self.label(name)
            self.code(text)
        done = bytearray()
        for piece in self._pieces:
            if isinstance(piece, tuple):
                label, fixup = piece
                piece = fixup(self._labels[label] - len(done))
            done += piece
        return bytes(done)


def x86_64() -> bytes:
    asm = Assembler()

    def code(text: str) -> None:
        asm.code(bytes.fromhex(text))

    def relative(opcode: str, label: str) -> None:
        """An instruction that ends with a 32-bit distance, counted from its end."""
        head = bytes.fromhex(opcode)
        asm.reference(label, lambda distance: head + struct.pack("<i", distance - len(head) - 4))

    def show(label: str) -> None:
        relative("48 8d 35", label)  # lea rsi, [rip + label]
        relative("e8", "print")  # call print

    code("48 89 e5")  # mov rbp, rsp          argc, argv…
    code("48 81 ec 90 01 00 00")  # sub rsp, ROOM
    show("greeting")
    code("48 89 e7")  # mov rdi, rsp
    code("b8 3f 00 00 00 0f 05")  # mov eax, 63; syscall          uname
    code("48 89 e6")  # mov rsi, rsp
    relative("e8", "print")
    show("on")
    code("48 8d b4 24 04 01 00 00")  # lea rsi, [rsp + MACHINE]
    relative("e8", "print")
    code("48 83 c5 10")  # add rbp, 16          past argc and argv[0]
    asm.label("next")
    code("48 83 7d 00 00")  # cmp qword [rbp], 0
    relative("0f 84", "done")  # je done
    show("space")
    code("48 8b 75 00")  # mov rsi, [rbp]
    relative("e8", "print")
    code("48 83 c5 08")  # add rbp, 8
    relative("e9", "next")  # jmp next
    asm.label("done")
    show("newline")
    code("31 ff b8 3c 00 00 00 0f 05")  # xor edi, edi; mov eax, 60; syscall          exit

    asm.label("print")  # the string at rsi, which a zero ends
    code("31 d2")  # xor edx, edx
    asm.label("measure")
    code("80 3c 16 00")  # cmp byte [rsi + rdx], 0
    relative("0f 84", "write")  # je write
    code("48 ff c2")  # inc rdx
    relative("e9", "measure")  # jmp measure
    asm.label("write")
    code("bf 01 00 00 00 b8 01 00 00 00 0f 05 c3")  # mov edi, 1; mov eax, 1; syscall; ret
    return asm.finish()


def aarch64() -> bytes:
    asm = Assembler()

    def code(*words: int) -> None:
        asm.code(struct.pack(f"<{len(words)}I", *words))

    def branch(opcode: int, label: str) -> None:
        asm.reference(label, lambda distance: struct.pack("<I", opcode | distance >> 2 & 0x3FFFFFF))

    def branch_if_zero(opcode: int, label: str) -> None:
        asm.reference(label, lambda distance: struct.pack("<I", opcode | (distance >> 2 & 0x7FFFF) << 5))

    def show(label: str) -> None:
        def adr(distance: int) -> bytes:  # adr x1, label
            return struct.pack("<I", 0x10000001 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5)

        asm.reference(label, adr)
        branch(0x94000000, "print")  # bl print

    code(0x910003F3)  # mov x19, sp          argc, argv…
    code(0xD10003FF | ROOM << 10)  # sub sp, sp, ROOM
    show("greeting")
    code(0x910003E0)  # mov x0, sp
    code(0xD2800008 | 160 << 5, 0xD4000001)  # mov x8, 160; svc 0          uname
    code(0x910003E1)  # mov x1, sp
    branch(0x94000000, "print")
    show("on")
    code(0x910003E1 | MACHINE << 10)  # add x1, sp, MACHINE
    branch(0x94000000, "print")
    code(0x91004273)  # add x19, x19, 16          past argc and argv[0]
    asm.label("next")
    code(0xF8408674)  # ldr x20, [x19], 8
    branch_if_zero(0xB4000014, "done")  # cbz x20, done
    show("space")
    code(0xAA1403E1)  # mov x1, x20
    branch(0x94000000, "print")
    branch(0x14000000, "next")  # b next
    asm.label("done")
    show("newline")
    code(0xD2800000, 0xD2800008 | 93 << 5, 0xD4000001)  # mov x0, 0; mov x8, 93; svc 0          exit

    asm.label("print")  # the string at x1, which a zero ends
    code(0xD2800002)  # mov x2, 0
    asm.label("measure")
    code(0x38626823)  # ldrb w3, [x1, x2]
    branch_if_zero(0x34000003, "write")  # cbz w3, write
    code(0x91000442)  # add x2, x2, 1
    branch(0x14000000, "measure")  # b measure
    asm.label("write")
    code(0xD2800020, 0xD2800008 | 64 << 5, 0xD4000001, 0xD65F03C0)  # mov x0, 1; mov x8, 64; svc 0; ret
    return asm.finish()


def elf(machine: int, text: bytes) -> bytes:
    """A static executable: one readable and executable segment that holds everything, and a stack that is neither."""
    size = HEADERS + len(text)
    identification = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)  # 64 bits, little-endian, version 1, System V
    header = identification + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x10000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return header + load + stack + text


def programs() -> dict[str, bytes]:
    """File names (with Docker's names of the architectures) and contents."""
    return {"hello-amd64": elf(EM_X86_64, x86_64()), "hello-arm64": elf(EM_AARCH64, aarch64())}


def main() -> None:
    for name, data in programs().items():
        path = Path(__file__).parent / name
        path.write_bytes(data)
        path.chmod(0o755)


if __name__ == "__main__":
    main()
