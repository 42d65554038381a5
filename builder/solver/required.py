"""Secrets and agents that a step cannot do without."""

from __future__ import annotations

from collections.abc import Iterable

from builder.errors import StepFailed
from builder.plan.steps import Mount, SecretMount, SshMount
from builder.solver.environment import Environment


def check_required(environment: Environment, mounts: Iterable[Mount]) -> None:
    """Raises StepFailed for a required secret or agent that was not given, also if the step's result is cached."""
    for planned in mounts:
        if isinstance(planned, SecretMount) and planned.required and planned.secret not in environment.secrets:
            raise StepFailed(
                f"the secret {planned.secret!r} is required and was not given",
                remedy=f"build with --secret id={planned.secret},src=PATH or id={planned.secret},env=NAME",
            )
        if isinstance(planned, SshMount) and planned.required and planned.agent not in environment.agents:
            raise StepFailed(
                f"the ssh agent {planned.agent!r} is required and was not given",
                remedy=f"build with --ssh {planned.agent}",
            )
