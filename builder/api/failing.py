"""Steps that fail: kept while a build runs, so that people can stand in them afterwards (`standing`)."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

from builder.api.inputs import is_stream, is_url
from builder.api.options import BuildOptions
from builder.api.special import special_arguments
from builder.context.source import GitContext, HTTPContext, LocalContext, parse_context
from builder.errors import BuilderError, StepFailed
from builder.plan.steps import Plan
from builder.progress import Warned
from builder.solver.environment import Environment
from builder.solver.failed import Before, FailedStep, Keep, StepState, encode_step, find_break
from builder.store.failed import FailedStates
from builder.store.store import Store


class Keeper:
    """Keeps the first step of a build that fails; `build` is the build's name, `project` what it is a build of.

    All layers that the step needs are fetched and unpacked then: afterwards there is no registry to ask."""

    def __init__(self, environment: Environment, options: BuildOptions, build: str, project: str) -> None:
        self._store = environment.store
        self._states = states_of(environment.store)
        self._limits = environment.limits
        self._epoch = environment.epoch
        self._options = options
        self._build = build
        self._project = project
        self._report = environment.report
        self._guard = environment.guard
        self._lock = threading.Lock()
        self._done = False

    def __call__(self, state: StepState, cause: str, upper: str) -> str:
        options = self._options
        with self._lock:
            if self._done:
                return ""
            self._done = True
        context = _lasting(options.context)
        contexts = {name: _lasting(value, name) for name, value in options.contexts.items()}
        step = FailedStep(
            state=state,
            cause=cause if self._guard is None else self._guard.mask_text(cause),
            context=context.address,
            dockerfile=_dockerfile(options),
            contexts={name: one.address for name, one in contexts.items()},
            epoch=self._epoch,
            network=options.network,
            offline=options.offline,
            isolation=options.isolation,
            limits=self._limits,
            secrets={name: (_path(source.path), source.variable) for name, source in options.secrets.items()},
            agents={name: tuple(map(_path, paths)) for name, paths in options.agents.items()},
            withheld=tuple(one.address for one in (context, *contexts.values()) if one.withheld),
            keep_git_dir=special_arguments(options).keep_git_dir,
        )
        try:
            for layers in (state.parent, *state.roots.values()):
                self._store.unpacked.directories(layers)
            if self._guard is not None:
                self._guard.check_kept(encode_step(step), upper)
            if upper:
                self._states.keep(self._build, self._project, encode_step(step), upper)
            else:
                with self._store.scratch() as scratch:
                    empty = os.path.join(scratch, "upper")
                    os.mkdir(empty)
                    self._states.keep(self._build, self._project, encode_step(step), empty)
        except BuilderError as error:
            self._report(Warned(f"the state of the step is not kept: {error}"))
            return ""
        return self._build


class _Lasting(NamedTuple):
    """A context's value that means the same in any working directory; `withheld` is whether it had credentials."""

    address: str
    withheld: bool = False


def _lasting(context: str, name: str | None = None) -> _Lasting:
    source = parse_context(context, name=name)
    if isinstance(source, LocalContext):
        return _Lasting(os.path.abspath(source.path))
    if isinstance(source, (GitContext, HTTPContext)) and _has_credentials(context):
        from builder.context.http import redacted

        return _Lasting(redacted(context), True)
    return _Lasting(context)


def _has_credentials(url: str) -> bool:
    """Whether a URL has a password, or a user that may be a token. With SSH a user is a part of the address."""
    if "@" not in url or "://" not in url:
        return False
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        _ = parts.port  # a malformed one raises, and may be a password
    except ValueError:
        return True
    user = parts.netloc.rpartition("@")[0]
    return ":" in user or (bool(user) and parts.scheme in ("http", "https"))


def _dockerfile(options: BuildOptions) -> str:
    """As `inputs.find_dockerfile` looks for it: that of a local context in the working directory first. Of what was
    piped in or fetched, perhaps with credentials, nothing is left to be found; no step needs it."""
    if is_url(options.dockerfile) or is_stream(options.dockerfile):
        return "-"
    local = isinstance(parse_context(options.context), LocalContext)
    return _path(options.dockerfile) if local and os.path.isfile(options.dockerfile) else options.dockerfile


def _path(path: str) -> str:
    return os.path.abspath(path) if path else ""


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


def states_of(store: Store) -> FailedStates:
    """The states that a store keeps."""
    return FailedStates(store.root, store.temporary)


def forget_failures(store: Store, project: str) -> None:
    """A build went well: what failed before is of no interest any more."""
    states_of(store).forget(project)
