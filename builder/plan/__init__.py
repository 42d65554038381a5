"""Instructions to a graph of steps: pure, without input or output.

`planner.plan` is the entry; `steps` holds the data that it makes.
"""
