"""A command that repeats the one before is answered with what that one said.

question.py     what is asked with a command line, and the answer
notes.py        the note that a command leaves: the state of all that it may have looked at, and what it said
archive.py      the archive that a repeated build writes again
registry.py     what the registry is asked before a repeated push is answered
leave.py        how a note is left; build.py, push.py: when a build, when a push leaves one

`question`, `notes`, `archive` and `registry`, which make an answer, use the standard library and xxhash only: loading
anything else would take longer than the answer.
"""
