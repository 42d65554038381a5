"""What each instruction does to a stage: change its configuration, or add a step.

One function an instruction, called with the stage's state; the rules are BuildKit's (`dockerfile2llb/convert.go`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from builder.dockerfile import instructions as df
from builder.dockerfile.text import SPACE, quoted
from builder.errors import DockerfileError, PlanError
from builder.plan import checks
from builder.plan.ports import parse_port
from builder.plan.scope import NEVER_VARIABLES
from builder.plan.signals import check_signal
from builder.plan.state import DeclaredArgument, StageState
from builder.plan.steps import Mount, RunNode, SecretMount, WorkdirNode


def dispatch(state: StageState, instruction: df.StageInstruction) -> None:
    """Apply one instruction. Raises PlanError (without a place; the caller adds it)."""
    state.scope.watch = lambda names: checks.check_undefined(state, instruction, names)
    state.scope.used = {}
    _DISPATCH[type(instruction)](state, instruction)


def _env(state: StageState, instruction: df.Env) -> None:
    pairs = [(state.scope.expand(pair.key), state.scope.expand(pair.value)) for pair in instruction.pairs]
    for written, (key, value) in zip(instruction.pairs, pairs, strict=True):
        checks.check_legacy(state, instruction, written)
        checks.check_secret(state, instruction, "ENV", key)
        state.scope.env[key] = value
        state.image.set_environment(key, value)
    state.image.record("ENV " + " ".join(f"{key}={value}" for key, value in pairs))


def _label(state: StageState, instruction: df.Label) -> None:
    pairs = [(state.scope.expand(pair.key), state.scope.expand(pair.value)) for pair in instruction.pairs]
    for written in instruction.pairs:
        checks.check_legacy(state, instruction, written)
    state.image.add_labels(dict(pairs))
    state.image.record("LABEL " + " ".join(f"{key}={value}" for key, value in pairs))


def _arg(state: StageState, instruction: df.Arg) -> None:
    shown = []
    for pair in instruction.pairs:
        name = state.scope.expand(pair.key)
        checks.check_secret(state, instruction, "ARG", name)
        value: str | None = None
        inherited = False
        if name in state.options.build_args:
            value = state.options.build_args[name]
            state.used_args.add(name)
        elif pair.given:
            value = state.scope.expand(pair.value)
        elif name in state.global_args:
            value = state.global_args[name]
            inherited = True
        state.arguments[name] = None if inherited else DeclaredArgument(name, value or "", instruction)
        if value is not None and name not in NEVER_VARIABLES:
            state.scope.env[name] = value
        state.scope.declared[name] = value
        shown.append(name if value is None else f"{name}={value}")
    state.image.record("ARG " + " ".join(shown))


def _run(state: StageState, instruction: df.Run) -> None:
    from builder.plan.mounts import plan_mounts

    mounts = plan_mounts(state, instruction)
    if instruction.devices:
        raise PlanError("RUN --device is not supported", remedy="remove --device; steps see no devices of the host")
    if instruction.security == "insecure" and "security.insecure" not in state.options.allow:
        raise PlanError("security.insecure is not allowed", remedy="build with --allow security.insecure")
    command = instruction.command
    script: tuple[str, str] | None = None
    arguments = list(command.arguments)
    if command.heredocs and command.shell:
        first = command.heredocs[0]
        if is_lone_heredoc(command):
            if first.content.startswith("#!"):
                script = (first.name, first.content)
                arguments = [f"/dev/pipes/{first.name}"]
            else:
                arguments = [first.content]
        else:
            arguments = ["".join([arguments[0], *(f"\n{here.content}{here.name}" for here in command.heredocs)])]
    if any("\0" in word for word in arguments):
        raise PlanError("there is a NUL byte in the here-document", remedy="remove it: no command can have one")
    if command.shell:
        arguments = state.image.with_shell(" ".join(arguments))
    network = instruction.network if instruction.network != "default" else state.options.network
    if network == "host" and state.options.network != "host" and "network.host" not in state.options.allow:
        raise PlanError("network.host is not allowed", remedy="build with --allow network.host")
    node = RunNode(
        **state.common(instruction),
        parent=state.node,
        argv=tuple(arguments),
        env=tuple(state.scope.env.items()),
        arguments=tuple(name for name in state.scope.env if name in state.scope.declared),
        proxies=state.proxies,
        user=state.image.config.user,
        workdir=state.image.config.working_dir or "/",
        network=network,
        security=instruction.security,
        mounts=mounts,
        script=script,
    )
    _note_script(state, instruction, mounts)
    state.step(node, " ".join(["RUN", *state.scope.history_prefix(), *arguments, "# buildkit"]))


def is_lone_heredoc(command: df.CommandLine) -> bool:
    """Whether nothing but one here-document stands behind RUN: it is the script."""
    if len(command.heredocs) != 1:
        return False
    from builder.dockerfile.heredocs import is_heredoc

    return is_heredoc(command.arguments[0].strip(SPACE)) is not None


def _note_script(state: StageState, instruction: df.Run, mounts: tuple[Mount, ...]) -> None:
    """Leave a script of this Dockerfile to ShellCheck; a trigger of the base image has its FROM's lines instead."""
    if state.entry.stage is not None and instruction.range == state.entry.stage.from_.range:
        return
    secrets = [mount.variable for mount in mounts if isinstance(mount, SecretMount) and mount.variable]
    proxies = [name for name, _ in state.proxies]
    names = [*state.scope.env, *state.scope.declared, *secrets, *proxies]
    state.checks.note_run(instruction, state.image.config.shell or (), names)


def _copy(state: StageState, instruction: df.Copy | df.Add) -> None:
    from builder.plan.sources import plan_copy

    node, created_by = plan_copy(state, instruction)
    state.step(node, created_by)


def _workdir(state: StageState, instruction: df.Workdir) -> None:
    path = state.scope.expand(instruction.path)
    checks.check_workdir(state, instruction, path)
    before = state.surroundings()
    workdir = state.image.set_workdir(path)
    if workdir == "/":
        state.image.record("WORKDIR /")
        return
    node = WorkdirNode(
        **state.common(instruction),
        parent=state.node,
        path=workdir,
        user=state.image.config.user,
        surroundings=before,
    )
    state.step(node, f"WORKDIR {workdir}")


def _user(state: StageState, instruction: df.User) -> None:
    user = state.scope.expand(instruction.user)
    state.image.change(user=user)
    state.image.record(f"USER {user}")


def _cmd(state: StageState, instruction: df.Cmd) -> None:
    checks.check_used_once(state, instruction)
    checks.check_json_form(state, instruction)
    command = _command(state, instruction.command)
    state.image.set_cmd(command)
    state.image.record(f"CMD {_quoted(command)}")


def _entrypoint(state: StageState, instruction: df.Entrypoint) -> None:
    checks.check_used_once(state, instruction)
    checks.check_json_form(state, instruction)
    command = _command(state, instruction.command)
    state.image.set_entrypoint(command)
    state.image.record(f"ENTRYPOINT {_quoted(command)}")


def _command(state: StageState, command: df.CommandLine) -> list[str]:
    if command.shell:
        return state.image.with_shell(" ".join(command.arguments))
    return list(command.arguments)


def _quoted(words: list[str]) -> str:
    return "[" + " ".join(quoted(word) for word in words) + "]"


def _healthcheck(state: StageState, instruction: df.HealthCheck) -> None:
    checks.check_used_once(state, instruction)
    from builder.plan.health import health_check, shown

    check = health_check(instruction)
    state.image.set_healthcheck(check)
    state.image.record(f"HEALTHCHECK {shown(check)}")


def _expose(state: StageState, instruction: df.Expose) -> None:
    words = [text for word in instruction.ports for text in state.scope.expand_words(word)]
    ports = [port for word in words for port in _port(state, instruction, word)]
    state.image.add_ports(ports)
    state.image.record(f"EXPOSE [{' '.join(ports)}]")


def _port(state: StageState, instruction: df.Expose, text: str) -> list[str]:
    ports = parse_port(text)
    checks.check_port(state, instruction, text)
    return ports


def _volume(state: StageState, instruction: df.Volume) -> None:
    paths = [state.scope.expand(word) for word in instruction.paths]
    state.image.add_volumes(paths)
    state.image.record(f"VOLUME [{' '.join(paths)}]")


def _stop_signal(state: StageState, instruction: df.StopSignal) -> None:
    signal = state.scope.expand(instruction.signal)
    check_signal(signal)
    state.image.change(stop_signal=signal)
    state.image.record(f"STOPSIGNAL {signal}")


def _shell(state: StageState, instruction: df.Shell) -> None:
    state.image.change(shell=list(instruction.shell))
    state.image.record(f"SHELL [{' '.join(instruction.shell)}]")


def _on_build(state: StageState, instruction: df.OnBuild) -> None:
    state.image.change(on_build=[*(state.image.config.on_build or ()), instruction.trigger])
    if state.checks.reads_scripts and instruction.trigger[:3].upper() == "RUN":
        _note_trigger(state, instruction)


def _note_trigger(state: StageState, instruction: df.OnBuild) -> None:
    """Leave a trigger's script to ShellCheck. What it will find set is this stage's ENV, not its arguments."""
    from builder.dockerfile.parser import parse_trigger

    try:
        run = parse_trigger(instruction.trigger)
    except DockerfileError:
        return  # whoever builds on this image is told
    if isinstance(run, df.Run):
        run = msgspec.structs.replace(run, range=instruction.range, comments=instruction.comments)
        names = state.scope.env.keys() - state.scope.declared.keys()
        state.checks.note_run(run, state.image.config.shell or (), names)


def _maintainer(state: StageState, instruction: df.Maintainer) -> None:
    state.image.set_author(instruction.name)
    state.image.record(f"MAINTAINER {instruction.name}")


_DISPATCH: dict[type[Any], Callable[[StageState, Any], None]] = {
    df.Env: _env,
    df.Label: _label,
    df.Arg: _arg,
    df.Run: _run,
    df.Copy: _copy,
    df.Add: _copy,
    df.Workdir: _workdir,
    df.User: _user,
    df.Cmd: _cmd,
    df.Entrypoint: _entrypoint,
    df.HealthCheck: _healthcheck,
    df.Expose: _expose,
    df.Volume: _volume,
    df.StopSignal: _stop_signal,
    df.Shell: _shell,
    df.OnBuild: _on_build,
    df.Maintainer: _maintainer,
}
