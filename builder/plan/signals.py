"""STOPSIGNAL's names and numbers (moby/sys `signal.ParseSignal`)."""

from __future__ import annotations

import re

from builder.errors import PlanError

_NUMBER = r"[+-]?[0-9]{1,18}"
_NAMES = frozenset(
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP"
    " TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX".split()
    + [f"RTMIN+{n}" for n in range(1, 16)]
    + [f"RTMAX-{n}" for n in range(1, 15)]
)


def check_signal(text: str) -> None:
    """Raises PlanError unless `text` is a signal's number or name (with or without SIG, in any case)."""
    if re.fullmatch(_NUMBER, text):
        if int(text) != 0:
            return
    elif text.upper().removeprefix("SIG") in _NAMES:
        return
    raise PlanError(f"invalid signal {text!r}", remedy="write a signal's name or number, for example SIGTERM or 15")
