"""A short form of `kill_points`, which tries many."""

from __future__ import annotations

import pytest

from tests.reliability import kill_points
from tests.support.builds import needs_sandbox

LOG = """\
#1 [base 2/2] COPY base/ /
#1 DONE 0.1s
#2 [x 2/2] RUN a
#2 1.0 DONE
#3 [x 3/3] RUN b
#3 CACHED
#4 x
#4 DONE
"""


def test_the_log_is_read() -> None:
    assert kill_points.steps(LOG) == {"[base 2/2] COPY base/ /": "DONE", "[x 3/3] RUN b": "CACHED"}


@pytest.mark.slow
@needs_sandbox
def test_ten_points() -> None:
    points = kill_points.run(10, seed=11)
    assert points.failures == []
    assert points.killed >= 5
