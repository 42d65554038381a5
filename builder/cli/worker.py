"""A process for `import builder` by a user that is not root: enters a user namespace, then serves (see api/worker)."""

from __future__ import annotations

import sys

from builder.api.worker import serve
from builder.cli.rootless import become_root

if __name__ == "__main__":
    serve(become_root, int(sys.argv[1]), int(sys.argv[2]))
