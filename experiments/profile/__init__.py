"""What architectures cost, measured: ``subquad profile``."""
