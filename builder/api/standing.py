"""Steps that failed and were kept (`failing`): stood in, looked at, and done again."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from builder.api.failing import states_of
from builder.api.inputs import Inputs, load_inputs
from builder.api.opening import Credentials, redacting, secret_reader, secret_readers, ssh_agents
from builder.api.options import BuildOptions, SecretSource
from builder.api.prepare import make_environment
from builder.api.running import exit_status
from builder.api.special import Special
from builder.context.source import StdinContext, parse_context
from builder.errors import ContextError, StepFailed
from builder.filesystem.layered import LayeredTree
from builder.filesystem.tree import FileTree
from builder.plan.steps import MAIN_CONTEXT, RunNode, SecretMount, SshMount
from builder.progress import Reporter, Warned, ignore
from builder.solver.contexts import Contexts
from builder.solver.environment import Environment
from builder.solver.failed import FailedStep, decode_step
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.sandbox.session import Session
    from builder.solver.interactive import ChangedFile


_WITH_IT = "build again, with it"


class Kept(msgspec.Struct, frozen=True):
    """A kept step: its build, what is known of it, and the directory with what its command wrote."""

    build: str
    step: FailedStep
    upper: str


@contextmanager
def kept_step(store: Store, name: str = "") -> Iterator[Kept]:
    """The step kept of a build, by a name of it as `Builds.find` takes it; '' is the last that was kept. It stays as
    long as the block lasts. Raises StoreError, UsageError."""
    states = states_of(store)
    if name and name not in (known := states.builds()):
        if build := store.builds.of_image(name):
            name = build.build
        elif not any(one.startswith(name) for one in known):  # also of a build that is no longer recorded
            name = store.builds.find(name).build
    with store.lease(), states.hold(name) as (held, data, upper):
        yield Kept(held, decode_step(data), upper)


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

    with _environment(store, kept, environ, report, secrets or {}) as environment:
        state = kept.step.state
        result = enter_step(environment, state, kept.upper if state.ran else "", arguments, session)
    return exit_status(result, state.node.platform)


def rerun(
    store: Store,
    kept: Kept,
    show: Callable[[int, bytes], None],
    *,
    environ: Mapping[str, str],
    report: Reporter = ignore,
) -> int:
    """Run the command of a kept RUN again where it ran, or where it should have, with no input. `show` gets what it
    writes to standard output (1) and standard error (2), as it comes, with secrets masked.

    Its exit status as `run_image` gives it. Raises what the step raises, also SecretLeak where a command that ends well
    printed a secret or wrote it into a file; what `show` raises; and the rest as `enter`.
    """
    from builder.solver.repeat import needs_contexts, repeat_command

    state = kept.step.state
    with _environment(store, kept, environ, report, again=True, contexts=needs_contexts(state)) as environment:
        result = repeat_command(environment, state, kept.upper if state.ran else "", show)
    return exit_status(result, state.node.platform)


def repeat(store: Store, kept: Kept, *, environ: Mapping[str, str], report: Reporter = ignore) -> list[ChangedFile]:
    """Do a kept COPY, ADD or WORKDIR again, with the contexts as they are now: what it would add or change, sorted by
    path. Raises what the step raises, and ContextError for a context that is not here any more."""
    from builder.solver.repeat import repeat_step

    with _environment(store, kept, environ, report, again=True, contexts=True) as environment:
        return repeat_step(environment, kept.step.state)


def changed(store: Store, kept: Kept) -> list[ChangedFile]:
    """What the step's command had changed when it failed, sorted by path. Raises StoreError, LayerError."""
    from builder.solver.interactive import changed_files

    return changed_files(Environment(store, Contexts({}), ignore), kept.step.state, kept.upper)


def files(store: Store, kept: Kept) -> LayeredTree:
    """The file system that a kept step left, or that it would have begun with. Raises StoreError, LayerError."""
    state = kept.step.state
    return LayeredTree([*([kept.upper] if state.ran else []), *store.unpacked.directories(state.parent)])


@contextmanager
def _environment(
    store: Store,
    kept: Kept,
    environ: Mapping[str, str],
    report: Reporter,
    secrets: Mapping[str, SecretSource] | None = None,
    *,
    again: bool = False,
    contexts: bool = False,
) -> Iterator[Environment]:
    """What the kept step had, as it is now. To do it `again` all secrets and keys of the build are read: they are
    looked for in what is copied, written and printed, as when it is built. With `contexts` those are opened."""
    step = kept.step
    mounts = step.state.node.mounts if isinstance(step.state.node, RunNode) else ()
    given = {name: SecretSource(*source) for name, source in step.secrets.items()} | dict(secrets or {})
    wanted = {mount.secret for mount in mounts if isinstance(mount, SecretMount)}
    known = dict(_secrets(given.keys() if again else wanted & given.keys(), given, environ, report))
    options = BuildOptions(
        secrets={name: SecretSource(value=content) for name, content in known.items()},
        limits=step.limits,
        network=step.network,
        offline=step.offline,
        isolation=step.isolation,
        agents=step.agents if again else {},
        environ=environ,
    )
    asked = {mount.agent for mount in mounts if isinstance(mount, SshMount)}
    with (
        store.scratch() as scratch,
        _agents(kept, step.agents.keys() if again else asked & step.agents.keys(), report) as agents,
    ):
        credentials = Credentials(secret_readers(options), agents)
        with redacting(options, credentials):
            inputs = (
                _inputs(store, step, scratch, credentials, environ) if contexts else Inputs("Dockerfile", b"", {}, {})
            )
            environment = make_environment(store, inputs, options, Special(epoch=step.epoch), credentials, report)
            with closing(environment):
                yield environment


def _inputs(
    store: Store, step: FailedStep, scratch: str, credentials: Credentials, environ: Mapping[str, str]
) -> Inputs:
    """The contexts of a kept step's build, as they are now. Raises ContextError, DockerfileError, OfflineError."""
    gone = _withheld(step.context) if step.context in step.withheld else None
    if isinstance(parse_context(step.context), StdinContext):
        gone = ContextError("the context came on standard input, and is not here any more", remedy=_WITH_IT)
    inputs = load_inputs(
        store,
        scratch if gone else step.context,
        "-" if gone else step.dockerfile,
        step.contexts,
        scratch,
        io.BytesIO(),
        keep_git_dir=step.keep_git_dir,
        commit_times=step.epoch is not None,
        secrets=credentials.secrets,
        agent=credentials.agents.get("default", ""),
        offline=step.offline,
        environ=environ,
        rego=False,
    )
    if gone is not None:
        inputs.openers[MAIN_CONTEXT] = partial(_refuse, gone)
    for key, address in inputs.remote.items():
        if address in step.withheld:
            inputs.openers[key] = partial(_refuse, _withheld(address))
    return inputs


def _withheld(address: str) -> ContextError:
    cause = "the context was fetched with a user or password, which is not kept"
    return ContextError(cause, place=address, remedy=_WITH_IT)


def _refuse(error: ContextError) -> FileTree:
    raise error


def _secrets(
    wanted: Set[str], given: Mapping[str, SecretSource], environ: Mapping[str, str], report: Reporter
) -> Iterator[tuple[str, bytes]]:
    """Those that can still be read."""
    for name in sorted(wanted):
        try:
            yield name, secret_reader(name, given[name], environ)()
        except StepFailed as error:
            report(Warned(f"{error}; the step is shown without it"))


@contextmanager
def _agents(kept: Kept, wanted: Set[str], report: Reporter) -> Iterator[Mapping[str, str]]:
    """The agents of these names that are still there."""
    there = {}
    for name in sorted(wanted):
        if all(os.path.exists(path) for path in kept.step.agents[name]):
            there[name] = kept.step.agents[name]
        else:
            report(Warned(f"the SSH agent {name!r} is not there any more; the step is shown without it"))
    with ssh_agents(there) as sockets:
        yield sockets
