"""What a step prints: secrets in it are masked before anybody sees or keeps it, and the step fails.

It fails once its command has ended: the log is whole then, and nothing was killed half-way in a cache mount. Whoever
cannot keep a program from printing a token may accept masked output in the configuration file.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from builder.errors import BuilderError
from builder.progress import Reporter, Warned
from builder.solver.secret_forms import SPACE, Form
from builder.solver.secrets import MASK, Guard, SecretLeak

_STREAMS = {1: "standard output", 2: "standard error"}
_MOST_LINES = 3  # of the masked output in an error
_ANCHOR = 8  # bytes


class Masking:
    """Masks streams that come in pieces: the beginning of what may be a secret is held back until the next piece.

    `printed` are the secrets that were in them, each with the stream's number.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._held: dict[int, bytes] = {}
        self.printed: dict[tuple[str, int], Form] = {}

    def feed(self, stream: int, data: bytes) -> bytes:
        """What of a stream may be shown by now."""
        data = self._held.pop(stream, b"") + data
        spread = 0
        if self._guard.spread:
            data, spread = self._mask_spread(stream, data)
        data, spread = self._mask(stream, data, spread)
        held = max(spread, _beginning(data, self._guard.forms))
        if held:
            self._held[stream] = data[-held:]
            return data[:-held]
        return data

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """What was held back, at the end of all streams."""
        for stream, data in self._held.items():
            yield stream, self._mask(stream, data, 0)[0]
        self._held = {}

    def check(self, step: str, output: Iterable[str], report: Reporter) -> None:
        """Once a command has ended well: raises SecretLeak if it printed a secret, showing where among the last lines
        of its `output` that was; where printing is accepted, it is a warning."""
        what = self._what()
        if not what:
            return
        if self._guard.may_print():
            report(Warned(f"{step}: the command printed {what}; the log is masked"))
            return
        lines = [line for line in output if MASK.decode() in line][-_MOST_LINES:]
        raise SecretLeak(
            f"the command printed {what}",
            details=("  it is masked in its output:", *(f"    {line}" for line in lines)) if lines else (),
            remedy="keep the command from printing it (no set -x, no curl -v); where that is not to be had, accept"
            ' masked output: printed = "mask" below [secrets] in builder.toml',
        )

    def add_to(self, error: BuilderError) -> None:
        """Say of a command that failed for another reason that it printed a secret, too."""
        what = self._what()
        if what and not isinstance(error, SecretLeak):
            error.details = (*error.details, f"  it also printed {what}, which the log shows masked")

    def _what(self) -> str:
        return " and ".join(
            f"the value of {form} to its {_STREAMS.get(stream, f'stream {stream}')}"
            for (_, stream), form in self.printed.items()
        )

    def _mask(self, stream: int, data: bytes, spared: int) -> tuple[bytes, int]:
        """Mask what begins before the last `spared` bytes; these, and how many of them are left."""
        for form in self._guard.forms:
            start = data.find(form.data)
            while 0 <= start < len(data) - spared:
                self.printed.setdefault((form.secret, stream), form)
                after = data[start + len(form.data) :]
                spared = min(spared, len(after))
                data = data[:start] + MASK + after
                start = data.find(form.data, start + len(MASK))
        return data, spared

    def _mask_spread(self, stream: int, data: bytes) -> tuple[bytes, int]:
        """Mask what is spread over lines. Also gives how many bytes at the end may begin such a thing."""
        dense = data.translate(None, SPACE)
        for form in self._guard.spread:
            if form.data in dense:
                self.printed.setdefault((form.secret, stream), form)
                at = _positions(data)
                end = len(dense)
                while (start := dense.rfind(form.data, 0, end)) >= 0:
                    data = data[: at(start)] + MASK + data[at(start + len(form.data) - 1) + 1 :]
                    end = start
                dense = data.translate(None, SPACE)
        held = _beginning(dense, self._guard.spread)
        return data, len(data) - _positions(data)(len(dense) - held) if held else 0


def _beginning(data: bytes, forms: Iterable[Form]) -> int:
    """How many bytes at the end begin a secret."""
    return max((_overlap(data, form.data) for form in forms), default=0)


def _overlap(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of a secret, and not all of it.

    The last bytes are searched for in the secret: in most output they are nowhere in it, however long it is.
    """
    end = min(len(data), len(secret) - 1)
    last = data[-min(end, _ANCHOR) :] if end else b""
    while end > _ANCHOR and (start := secret.rfind(last, 0, end)) >= 0:
        if data.endswith(secret[: start + _ANCHOR]):
            return start + _ANCHOR
        end = start + _ANCHOR - 1
    start = last.find(secret[:1])
    while start >= 0:
        if secret.startswith(last[start:]):
            return len(last) - start
        start = last.find(secret[:1], start + 1)
    return 0


def _positions(data: bytes) -> Callable[[int], int]:
    """Tells where in `data` the byte is that is at a position without white space."""
    here, there = [0], [0]
    for piece in re.finditer(rb"\S+", data):
        here.append(piece.start())
        there.append(there[-1] + piece.end() - piece.start())
    # there[n] is where piece n begins without white space, here[n + 1] where it begins.

    def at(position: int) -> int:
        piece = bisect_right(there, position) - 1
        return here[piece + 1] + position - there[piece]

    return at
