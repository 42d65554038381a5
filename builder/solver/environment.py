"""What the steps of one build share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from builder.errors import Interrupted
from builder.filesystem.compression import Compression
from builder.progress import Reporter
from builder.solver.cache import StepCache
from builder.solver.contexts import Contexts
from builder.solver.limits import Limits
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.plan.steps import CopyNode
    from builder.sandbox.client import Sandbox
    from builder.solver.failed import Before, Keep
    from builder.solver.folds import Folds
    from builder.solver.foresee import Foreseen
    from builder.solver.gather import Source
    from builder.solver.outline import Outline
    from builder.solver.roots import Layers
    from builder.solver.secrets import Guard
    from builder.solver.users import Accounts

    Copied = Callable[[CopyNode, Sequence[Source], int], None]


class Materials:
    """What was fetched for a build: the digest of each URL's content, and of each git source its repository's URL with
    the reference, and the commit. The keys are the texts of the Dockerfile."""

    def __init__(self) -> None:
        self.urls: dict[str, str] = {}
        self.commits: dict[str, tuple[str, str]] = {}


class Environment:
    """The store, the contexts, the secrets and the settings of one build. `secret` gives a secret's bytes or None.

    `offline` keeps sources from being fetched, `isolated` gives no step a network, whatever it asks for.
    `isolation` is one of `isolation.CHOICES`. `environ` names the proxies and authorities of what is fetched (None: the
    process's).

    `guard` keeps secrets out of layers and logs; None when the build has none.

    `copied` is told of each COPY and ADD that read its sources, once they are read, and how many bytes the layer has
    uncompressed; `running` is called when a command runs; `before` is told of each step before it is looked up; `keep`
    keeps the state of a step that fails.
    """

    def __init__(
        self,
        store: Store,
        contexts: Contexts,
        report: Reporter,
        *,
        epoch: int | None = None,
        compression: Compression | None = None,
        limits: Limits | None = None,
        secrets: Mapping[str, Callable[[], bytes]] | None = None,
        agents: Mapping[str, str] | None = None,
        offline: bool = False,
        isolated: bool = False,
        guard: Guard | None = None,
        isolation: str = "default",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.store = store
        self.guard = guard
        self.cache = StepCache(store)
        self.contexts = contexts
        self.report = report
        self.epoch = epoch
        self.compression = compression or Compression()
        self.limits = limits or Limits()
        self.secrets = secrets or {}
        self.agents = agents or {}
        self.offline = offline
        self.isolated = isolated
        self.isolation = isolation
        self.environ = environ
        self.materials = Materials()
        self.copied: Copied = _unobserved
        self.running: Callable[[], object] | None = None
        self.keep: Keep | None = None
        self.before: Before | None = None
        self.accounts: dict[Layers, Accounts] = {}
        self.outlines: dict[str, Outline] = {}  # of layers, by their diff IDs
        # What the last COPY took. It is let go when the next one begins: to free many files takes long, and most builds
        # end before, with their process.
        self.spent: Sequence[Source] = ()
        self.cancelled = False  # set once, by any thread
        self.ended: list[Callable[[], None]] = []  # what else is to be ended when the build is cancelled
        self._sandbox: Sandbox | None = None
        self._prepared = False
        self._folds: Folds | None = None
        self._foreseen: Foreseen | None = None
        self._lock = threading.Lock()

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox, started when the first command runs."""
        with self._lock:
            self.check_cancelled()
            if self._sandbox is None:
                from builder.solver.isolation import open_sandbox

                self._sandbox = open_sandbox(self.isolation)
            return self._sandbox

    @property
    def folds(self) -> Folds:
        """The folded layers, made when the first command runs."""
        with self._lock:
            if self._folds is None:
                from builder.solver.folds import Folds

                self._folds = Folds(self.store)
            return self._folds

    def prepare_sandbox(self) -> None:
        """Start what commands run through, which goes on beside what comes next: one will run soon.

        In this thread: in another the modules that this takes would load by turns with those that the step needs, and
        both would wait.
        """
        if not self._prepared:
            self._prepared = True
            with suppress(Exception):  # the command that needs it says what is wrong
                self.sandbox.prepare()

    def keep_foreseen(self, foreseen: Foreseen | None) -> None:
        """Keep the root that is made for the next step, instead of the one that was kept, which is given up."""
        before = self.take_foreseen()
        if before is not None:
            before.give_up(self.store)
        self._foreseen = foreseen

    def take_foreseen(self) -> Foreseen | None:
        """Take what was kept, if nobody has."""
        with self._lock:
            foreseen, self._foreseen = self._foreseen, None
        return foreseen

    def rest_sandbox(self) -> None:
        """Let what commands run through end beside what comes next: no command is expected."""
        self.keep_foreseen(None)
        if self._sandbox is not None:
            self._sandbox.rest()

    def check_cancelled(self) -> None:
        """Raises Interrupted once the build is to end."""
        if self.cancelled:
            raise Interrupted("the build was interrupted")

    def cancel(self) -> None:
        """End the steps that run, and let no other begin."""
        self.cancelled = True
        with self._lock:  # a step that is about to start the sandbox sees the flag, or is seen here
            sandbox = self._sandbox
        if sandbox is not None:
            sandbox.cancel()
        for end in self.ended:
            end()

    def close(self) -> None:
        """End what still runs."""
        self.keep_foreseen(None)
        if self._sandbox is not None:
            self._sandbox.close()
        if self._folds is not None:
            self._folds.close()


def _unobserved(node: CopyNode, sources: Sequence[Source], written: int) -> None:
    """Nobody wants to know what a COPY reads."""
