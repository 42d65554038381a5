"""A whole build behind one function: what the command line and `import builder` both call."""
