"""What the commands that talk to registries share: the session, and how their transfers are shown, as by Docker."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from builder import config as configuration
from builder.progress import Event, Message, Reporter, Transfer, Warned, warning

if TYPE_CHECKING:
    from tqdm import tqdm

    from builder.registry.transport import Session

PULLED = {"fetched": "Pull complete", "present": "Already exists"}
PUSHED = {"sent": "Pushed", "present": "Layer already exists"}


def notice(event: Event) -> None:
    """Tell on standard error what people should know, and nothing else."""
    text = warning(event) if isinstance(event, Warned) else event.text if isinstance(event, Message) else ""
    if text:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def open_session(*, insecure: tuple[str, ...] = (), report: Reporter = notice) -> Iterator[Session]:
    """A session with registries, with the settings of the environment and builder.toml; `insecure` are registries that
    need not be trusted. `report` is told what delays it."""
    from builder.registry.insecure import allow_insecure
    from builder.registry.transport import Session

    config = configuration.load(os.environ)
    for domain in insecure:
        config = allow_insecure(config, os.environ, domain)
    with Session(config, os.environ, reporter=report) as session:
        yield session


class TransferView:
    """Shows the blobs of a pull or push: a line on `stream`, by default standard output, for each that is done, in
    Docker's words (`words` by outcome), and on a terminal bars for those under way. With `quiet` only warnings are
    shown. A context manager."""

    def __init__(self, words: Mapping[str, str], *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._words = words
        self._quiet = quiet
        self._stream = stream or sys.stdout
        self._live = sys.stderr.isatty() and not quiet
        self._lock = threading.Lock()
        self._bars: dict[str, tqdm[Any]] = {}

    def __enter__(self) -> TransferView:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Transfer):
                self._transfer(event)
            elif isinstance(event, Warned):
                self.line(warning(event), error=True)
            elif isinstance(event, Message) and not self._quiet:
                self.line(event.text, error=True)

    def line(self, text: str, *, error: bool = False) -> None:
        """A line that is not about one blob."""
        if self._quiet and not error:
            return
        stream = sys.stderr if error else self._stream
        if self._bars:
            from tqdm import tqdm

            tqdm.write(text, file=stream)
        else:
            print(text, file=stream, flush=True)

    def _transfer(self, event: Transfer) -> None:
        name = event.name.rpartition(":")[2]  # `pulling sha256:0123456789ab`
        if event.outcome:
            if bar := self._bars.pop(name, None):
                bar.close()
            self.line(f"{name}: {self._words.get(event.outcome) or event.outcome.capitalize()}")
        elif self._live:
            bar = self._bars.get(name) or self._open(name, event)
            bar.update(event.done - bar.n)

    def _open(self, name: str, event: Transfer) -> tqdm[Any]:
        from tqdm import tqdm

        bar = self._bars[name] = tqdm(
            total=event.total, desc=name, unit="B", unit_scale=True, file=sys.stderr, leave=False, dynamic_ncols=True
        )
        return bar
