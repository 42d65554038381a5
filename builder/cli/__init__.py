"""The command line: one command a file, loaded when it is called.

Only here is the environment read, output printed and the process ended.
"""
