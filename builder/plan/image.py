"""An image's configuration while instructions change it. The rules are those of BuildKit's `dispatch…` functions."""

from __future__ import annotations

import msgspec

from builder.errors import PlanError
from builder.oci.spec import ContainerConfig, Healthcheck, ImageConfig, Platform
from builder.plan.paths import DEFAULT_PATH, normalise
from builder.plan.steps import HistoryLine

_DEFAULT_SHELL = ("/bin/sh", "-c")
_WINDOWS_SHELL = ("cmd", "/S", "/C")


class ImageState:
    """The configuration of one stage and the lines of history it adds. `moments` are what the configuration was, or is,
    between a node and the next: what is said after a layer belongs to it."""

    def __init__(self, image: ImageConfig) -> None:
        self.image = image
        self.history: list[HistoryLine] = []
        self.moments: dict[int, ImageConfig] = {}
        self.cmd_set = False
        self._env: list[str] | None = None  # the environment whose names are in `_positions`
        self._positions: dict[str, int] = {}

    @property
    def config(self) -> ContainerConfig:
        return self.image.config

    def child(self) -> ImageState:
        """The state that a stage built on this one begins with: triggers are not handed down."""
        state = ImageState(self.image)
        state.history = list(self.history)
        state.moments = dict(self.moments)
        state.change(on_build=None)
        return state

    def change(self, **fields: object) -> None:
        """Replace fields of the container's configuration."""
        config = msgspec.structs.replace(self.image.config, **fields)
        self.image = msgspec.structs.replace(self.image, config=config)

    def record(self, created_by: str, node: int | None = None) -> None:
        """Add a line of history; `node` is the step that makes its layer."""
        self.history.append(HistoryLine(created_by, node))

    def set_environment(self, key: str, value: str) -> None:
        """Give a variable a value, in the place where it was set first."""
        env = list(self.config.env or ())
        if self._env is None or self.config.env is not self._env:
            self._positions = {pair.partition("=")[0]: len(env) - after for after, pair in enumerate(reversed(env), 1)}
        position = self._positions.setdefault(key, len(env))
        env[position : position + 1] = [f"{key}={value}"]
        self.change(env=env)
        self._env = env

    def ensure_path(self) -> None:
        """Every image has a PATH, but for Windows, which sets it itself."""
        if self.image.os != "windows" and not any(pair.partition("=")[0] == "PATH" for pair in self.config.env or ()):
            self.change(env=[*(self.config.env or ()), f"PATH={DEFAULT_PATH}"])

    def environment(self) -> dict[str, str]:
        pairs = (pair.partition("=") for pair in self.config.env or ())
        return {name: value for name, _, value in pairs}

    def set_workdir(self, path: str) -> str:
        """Make `path` the working directory and return it, absolute."""
        workdir = normalise(self.config.working_dir, path)
        self.change(working_dir=workdir)
        return workdir

    def with_shell(self, line: str) -> list[str]:
        """The command that runs a shell-form line."""
        default = _WINDOWS_SHELL if self.image.os == "windows" else _DEFAULT_SHELL
        return [*(self.config.shell or default), line]

    def set_cmd(self, command: list[str]) -> None:
        self.change(cmd=command, args_escaped=True)
        self.cmd_set = True

    def set_entrypoint(self, command: list[str]) -> None:
        """An ENTRYPOINT resets a CMD that comes from the base image."""
        self.change(entrypoint=command)
        if not self.cmd_set:
            self.change(cmd=None)

    def add_labels(self, labels: dict[str, str]) -> None:
        self.change(labels={**(self.config.labels or {}), **labels})

    def add_ports(self, ports: list[str]) -> None:
        self.change(exposed_ports={**(self.config.exposed_ports or {}), **{port: {} for port in ports}})

    def add_volumes(self, paths: list[str]) -> None:
        if "" in paths:
            raise PlanError("a volume's path cannot be empty", remedy='write VOLUME /path, or VOLUME ["/path"]')
        self.change(volumes={**(self.config.volumes or {}), **{path: {} for path in paths}})

    def set_healthcheck(self, healthcheck: Healthcheck) -> None:
        self.change(healthcheck=healthcheck)

    def set_author(self, author: str) -> None:
        self.image = msgspec.structs.replace(self.image, author=author)

    def set_platform(self, platform: Platform, *, same_variant: bool) -> None:
        self.image = msgspec.structs.replace(
            self.image,
            os=platform.os,
            architecture=platform.architecture,
            variant=platform.variant or (self.image.platform().variant if same_variant else ""),
        )


def empty_image(platform: Platform) -> ImageConfig:
    """What `FROM scratch` begins with."""
    config = ContainerConfig(working_dir="/", env=None if platform.os == "windows" else [f"PATH={DEFAULT_PATH}"])
    return ImageConfig(architecture=platform.architecture, os=platform.os, variant=platform.variant, config=config)
