"""Benchmarks against other libraries: scripts, each of which says in its docstring how to run it."""
