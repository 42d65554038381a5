"""Signals of STOPSIGNAL."""

from __future__ import annotations

import pytest

from builder.errors import PlanError
from builder.plan.signals import check_signal


@pytest.mark.parametrize(
    "text", ["SIGTERM", "TERM", "sigterm", "Kill", "9", "+9", "-3", "64", "RTMIN+15", "SIGRTMAX-1", "IOT"]
)
def test_signals(text: str) -> None:
    check_signal(text)


@pytest.mark.parametrize(
    "text", ["", "0", "-0", "SIG", "SIGSIGTERM", "NONSENSE", "RTMIN+16", "+-9", "--9", "9 ", "٩", "9" * 5000]
)
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(PlanError, match="invalid signal") as caught:
        check_signal(text)
    assert caught.value.remedy
