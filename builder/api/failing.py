"""Steps that failed: kept while a build runs, and stood in afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import msgspec

from builder.api.inputs import ssh_agents
from builder.api.options import BuildOptions, SecretSource
from builder.api.prepare import secret_reader
from builder.api.running import exit_status
from builder.errors import StepFailed, StoreError
from builder.plan.steps import Plan, SecretMount, SshMount
from builder.progress import Reporter, Warned, ignore
from builder.solver.contexts import Contexts
from builder.solver.environment import Environment
from builder.solver.failed import Before, FailedStep, Keep, StepState, decode_step, encode_step, find_break
from builder.store.failed import FailedStates
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.sandbox.session import Session
    from builder.solver.interactive import ChangedFile


class Keeper:
    """Keeps the first step of a build that fails; `build` is the build's name, `project` what it is a build of."""

    def __init__(self, environment: Environment, options: BuildOptions, build: str, project: str) -> None:
        self._store = environment.store
        self._limits = environment.limits
        self._options = options
        self._build = build
        self._project = project
        self._report = environment.report
        self._lock = threading.Lock()
        self._done = False

    def __call__(self, state: StepState, cause: str, upper: str) -> str:
        options = self._options
        with self._lock:
            if self._done:
                return ""
            self._done = True
        step = FailedStep(
            state=state,
            cause=cause,
            context=options.context,
            limits=self._limits,
            secrets={name: (source.path, source.variable) for name, source in options.secrets.items()},
            agents=options.agents,
        )
        try:
            if upper:
                FailedStates(self._store).keep(self._build, self._project, encode_step(step), upper)
            else:
                with self._store.scratch() as scratch:
                    empty = os.path.join(scratch, "upper")
                    os.mkdir(empty)
                    FailedStates(self._store).keep(self._build, self._project, encode_step(step), empty)
        except StoreError as error:
            self._report(Warned(f"the state of the step is not kept: {error}"))
            return ""
        return self._build


def stopper(keep: Keep, plan: Plan, text: str) -> Before:
    """What stops a build before the step that `--break` names. Raises UsageError if there is none."""
    numbers = find_break(plan, text)

    def before(state: StepState, number: int) -> None:
        if number in numbers:
            error = StepFailed(f"stopped before {_position(state.node.label)}", remedy="build without --break to go on")
            error.kept = keep(state, error.cause, "")
            raise error

    return before


def _position(label: str) -> str:
    """`build 2/5`, as people find it in the output."""
    return " ".join(label.partition("]")[0].lstrip("[").split())


def forget_failures(store: Store, project: str) -> None:
    """A build went well: what failed before is of no interest any more."""
    FailedStates(store).forget(project)


class Kept(msgspec.Struct, frozen=True):
    """A kept step: its build, what is known of it, and the directory with what its command wrote."""

    build: str
    step: FailedStep
    upper: str


@contextmanager
def kept_step(store: Store, name: str = "") -> Iterator[Kept]:
    """The step kept of a build, by the first digits of its name or an image's name; '' is the last that was kept. It
    stays as long as the block lasts. Raises StoreError, UsageError."""
    states = FailedStates(store)
    if name and not any(build.startswith(name) for build in states.builds()):
        name = store.builds.find(name).build
    with store.lease(), states.hold(name) as (build, data, upper):
        yield Kept(build, decode_step(data), upper)


def enter(
    store: Store,
    kept: Kept,
    session: Session,
    arguments: tuple[str, ...] | None = None,
    *,
    environ: Mapping[str, str],
    secrets: Mapping[str, SecretSource] | None = None,
    report: Reporter = ignore,
) -> int:
    """Run something in a kept step's place (None: a shell); its exit status as `run_image` gives it.

    Secrets are read again from where they came from, or from `secrets`; those, and SSH agents, that are not there any
    more are left out, with a warning. Raises StepFailed, StoreError, Unsupported; OSError if nobody reads the output.
    """
    from builder.solver.interactive import enter_step

    given = {name: SecretSource(*source) for name, source in kept.step.secrets.items()} | dict(secrets or {})
    with _agents(kept, report) as agents:
        environment = Environment(
            store,
            Contexts({}),
            report,
            limits=kept.step.limits,
            secrets=dict(_secrets(kept, given, environ, report)),
            agents=agents,
        )
        with closing(environment):
            state = kept.step.state
            result = enter_step(environment, state, kept.upper if state.ran else "", arguments, session)
    return exit_status(result, state.node.platform)


def changed(store: Store, kept: Kept) -> list[ChangedFile]:
    """What the step's command had changed when it failed, sorted by path. Raises StoreError, LayerError."""
    from builder.solver.interactive import changed_files

    return changed_files(Environment(store, Contexts({}), ignore), kept.step.state, kept.upper)


def _secrets(
    kept: Kept, given: Mapping[str, SecretSource], environ: Mapping[str, str], report: Reporter
) -> Iterator[tuple[str, _Known]]:
    wanted = {mount.secret for mount in kept.step.state.node.mounts if isinstance(mount, SecretMount)}
    for name in sorted(wanted & given.keys()):
        try:
            yield name, _Known(secret_reader(name, given[name], environ)())
        except StepFailed as error:
            report(Warned(f"{error}; the step is shown without it"))


class _Known:
    """Gives a secret that was read."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __call__(self) -> bytes:
        return self._content


@contextmanager
def _agents(kept: Kept, report: Reporter) -> Iterator[Mapping[str, str]]:
    """The agents that the step's mounts ask for, and that are still there."""
    wanted = {mount.agent for mount in kept.step.state.node.mounts if isinstance(mount, SshMount)}
    there = {}
    for name in sorted(wanted & kept.step.agents.keys()):
        if all(os.path.exists(path) for path in kept.step.agents[name]):
            there[name] = kept.step.agents[name]
        else:
            report(Warned(f"the SSH agent {name!r} is not there any more; the step is shown without it"))
    with ssh_agents(there) as sockets:
        yield sockets
