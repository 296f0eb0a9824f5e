"""The lab: trainer, data, sweeps, comparison, reports, and the command line."""
