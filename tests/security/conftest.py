"""The sandbox's own fixtures, for attempts to break out of it."""

from __future__ import annotations

from tests.sandbox.conftest import busybox, overlay, run, sandbox

__all__ = ["busybox", "overlay", "run", "sandbox"]
