"""What all tests share: how hypothesis searches."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Times vary by a factor of three on a shared machine. The gate tries the same examples each time; elsewhere they vary.
settings.register_profile(
    "builder",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("builder")
