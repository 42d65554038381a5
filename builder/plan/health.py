"""HEALTHCHECK: what the configuration and the history say of it (`dispatchHealthcheck` of `convert.go`)."""

from __future__ import annotations

from builder.dockerfile.instructions import HealthCheck
from builder.dockerfile.values import format_duration
from builder.oci.spec import Healthcheck


def health_check(instruction: HealthCheck) -> Healthcheck:
    """The health check that an instruction sets."""
    test = ["NONE"]
    if instruction.test is not None:
        kind = "CMD-SHELL" if instruction.test.shell else "CMD"
        test = [kind, *instruction.test.arguments]
    return Healthcheck(
        test=test,
        interval=instruction.interval,
        timeout=instruction.timeout,
        start_period=instruction.start_period,
        start_interval=instruction.start_interval,
        retries=instruction.retries,
    )


def shown(check: Healthcheck) -> str:
    """A health check in the history: Go's `%+v` of the structure."""
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    words = [f"Test:[{' '.join(check.test)}]", *(f"{name}:{format_duration(time)}" for name, time in times.items())]
    return f"{{{' '.join(words)} Retries:{check.retries}}}"
