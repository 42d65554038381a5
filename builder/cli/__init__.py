"""The command line: one command a file, loaded when it is called.

Only here is the environment read, output printed and the process ended.
"""

import gc

# Before the commands are imported: by default the collector runs dozens of times while modules load (20 ms of 160).
gc.set_threshold(50_000, 20, 20)
