"""What a user may set for all RUN steps of a build."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a RUN step may use (0 or empty: no limit) and sees of names. `memory` and `shm_size` in bytes, `cpus` in
    processors; `ulimits` are (name, soft, hard); `hosts` are lines of /etc/hosts as (name, address)."""

    memory: int = 0
    cpus: float = 0.0
    shm_size: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
