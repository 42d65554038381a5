"""The live view on a terminal: steps that run with their times, bars for transfers, finished steps as lines above."""

from __future__ import annotations

import threading
import time
from typing import Any, TextIO

from tqdm import tqdm

from builder.errors import one_line
from builder.filesystem.names import printable
from builder.progress import (
    Event,
    Message,
    StepDone,
    StepMissed,
    StepOutput,
    StepStarted,
    Transfer,
    Warned,
    human_size,
    warning,
)

_TAIL = 5


class LiveView:
    """One bar for each step that runs, with the last line of its output; tqdm keeps them at the bottom."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.RLock()
        self._bars: dict[str, tqdm[Any]] = {}
        self._names: dict[str, str] = {}
        self._started: dict[str, float] = {}
        self._tails: dict[str, list[str]] = {}
        self._reasons: dict[str, str] = {}
        self._stopped = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._ticker.start()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, StepStarted):
                self._begin(event)
            elif isinstance(event, StepMissed):
                self._reasons[event.step] = f"because {printable(event.reason.text)}"
            elif isinstance(event, StepOutput):
                self._tail(event)
            elif isinstance(event, StepDone):
                self._end(event)
            elif isinstance(event, Transfer):
                self._transfer(event)
            elif isinstance(event, Warned):
                self._print(warning(event))
            elif isinstance(event, Message):
                self._print(one_line(event.text))

    def _begin(self, event: StepStarted) -> None:
        self._names[event.step] = event.name
        self._started[event.step] = time.monotonic()
        self._tails[event.step] = []
        self._bars[event.step] = tqdm(total=0, bar_format="{desc}", file=self._out, leave=False, dynamic_ncols=True)
        self._describe(event.step)

    def _describe(self, step: str) -> None:
        bar = self._bars[step]
        width = self._width(bar)
        tail = self._tails[step][-1] if self._tails[step] else self._reasons.get(step, "")
        text = _row(time.monotonic() - self._started[step], self._names[step], width if not tail else width // 2)
        bar.set_description_str((f"{text} | {tail}" if tail else text)[:width], refresh=True)

    def _width(self, bar: tqdm[Any]) -> int:
        """Columns of the terminal, less one: a full row would wrap on some."""
        return max(20, (bar.ncols or 80) - 1)

    def _tail(self, event: StepOutput) -> None:
        tail = self._tails.setdefault(event.step, [])
        text = event.data.decode("utf-8", "replace")
        tail.extend("".join(c for c in line if c.isprintable()) for line in text.splitlines() if line.strip())
        del tail[:-_TAIL]

    def _end(self, event: StepDone) -> None:
        bar = self._bars.pop(event.step, None)
        width = 79
        if bar is not None:
            width = self._width(bar)
            bar.close()
        state = "ERROR" if event.error else "CACHED" if event.cached else None
        self._print(_row(event.seconds, event.name, width, state))
        reason = self._reasons.pop(event.step, "")
        if reason and not event.cached:
            self._print(_cut(f"{'':9}{reason}", width))

    def _transfer(self, event: Transfer) -> None:
        bar = self._bars.get(f"transfer {event.name}")
        if bar is None:
            if event.total >= 0 and event.done >= event.total:
                return
            self._bars[f"transfer {event.name}"] = tqdm(
                total=event.total if event.total >= 0 else None,
                desc=f" => {one_line(event.name)}",
                unit="B",
                unit_scale=True,
                file=self._out,
                leave=False,
                dynamic_ncols=True,
            )
            bar = self._bars[f"transfer {event.name}"]
        bar.update(event.done - bar.n)
        if event.total >= 0 and event.done >= event.total:
            self._bars.pop(f"transfer {event.name}").close()
            self._print(f" => {one_line(event.name)}  {human_size(event.total)}")

    def _print(self, text: str) -> None:
        tqdm.write(text, file=self._out)

    def _tick(self) -> None:
        while not self._stopped.wait(0.2):
            with self._lock:
                for step in self._started:
                    if step in self._bars:
                        self._describe(step)

    def close(self) -> None:
        self._stopped.set()
        self._ticker.join()
        with self._lock:
            for bar in self._bars.values():
                bar.close()
            self._bars.clear()


def _row(seconds: float, name: str, width: int, state: str | None = None) -> str:
    """A line of at most `width` columns: the time or the state, then the step, cut where it does not fit."""
    return _cut(f"{state or f'{seconds:.1f}s':>8} {one_line(' '.join(name.split()))}", width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
