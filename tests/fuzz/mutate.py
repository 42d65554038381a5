"""Random inputs: mutations of seeds, for when atheris, which is led by coverage, is not there."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

from builder.errors import BuilderError
from tests.fuzz.targets import Target

_LARGEST = 4096
SLOW = 2.0
"""Seconds within which every input of at most 4 KiB must be done."""


def inputs(seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Inputs without end; the same ones for the same `seed`."""
    chance = random.Random(seed)
    pieces = [piece for text in seeds for piece in (text, *text.split(), *text.splitlines(keepends=True)) if piece]
    yield from seeds
    while True:
        if chance.random() < 0.05:
            yield chance.randbytes(chance.randrange(600))
            continue
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(6):
                case 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del data[at : at + chance.randrange(1, 40)]
                case 2:
                    data[at:at] = chance.choice(pieces)
                case 3:
                    data[at:at] = data[at : at + chance.randrange(1, 60)] * chance.randrange(1, 30)
                case 4 if data:
                    data[at % len(data)] ^= 1 << chance.randrange(8)
                case _:
                    data[at:at] = chance.choice(b"\0 \n\\\"'$${}()[]*?!#:@/-=,.;%\xff\xc3".decode("latin-1")).encode(
                        "latin-1"
                    ) * chance.randrange(1, 20)
        yield bytes(data[:_LARGEST])


class Defect(Exception):
    """What a target must not do, and the input that made it do so."""


def attempt(target: Target, data: bytes) -> None:
    """Run one input. Raises Defect."""
    started = time.thread_time()
    try:
        target(data)
    except BuilderError as error:
        if not error.cause.strip():
            raise Defect(f"an error without a cause, of {data!r}") from error
    except Exception as error:
        raise Defect(f"{type(error).__name__}: {error}, of {data!r}") from error
    if time.thread_time() - started > SLOW:
        raise Defect(f"more than {SLOW} s for {data!r}")


def run(target: Target, seeds: Sequence[bytes], seconds: float, seed: int = 0, least: int = 0) -> int:
    """Run inputs for so long, and `least` of them; returns how many they were. Raises Defect."""
    end = time.monotonic() + seconds
    for count, data in enumerate(inputs(seeds, seed)):
        if count >= least and time.monotonic() > end:
            break
        attempt(target, data)
    return count
