"""User namespaces with maps of IDs that only somebody outside can write."""

from __future__ import annotations


def entering(id_map: str) -> str:
    """Python that puts the process into a new user namespace, with this map of users and groups. It needs `os`."""
    return f"""\
ready, tell = os.pipe()
done, go = os.pipe()
parent = os.getpid()
if os.fork() == 0:
    os.read(ready, 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{{parent}}/{{name}}", "w") as file:
            file.write({id_map!r})
    os.write(go, b"x")
    os._exit(0)
from builder.sandbox.syscalls import unshare
unshare(0x10000000)
os.write(tell, b"x")
os.read(done, 1)
os.wait()
"""
