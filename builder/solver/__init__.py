"""Runs a plan's steps, from the cache where it can, and commits the images."""
