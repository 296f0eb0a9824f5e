"""Comparisons: architectures on tasks, under one set of rules."""
