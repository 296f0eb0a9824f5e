"""What workers run in the tests of the executor: in a module of its own, so that they need not import jax."""

import json
import os
import time


def fake_work(payload, report):
    """Says what it was given, by payload: ("ok", file), ("raise", message) or ("die", status)."""
    kind, value = payload
    report(1, 0.5)
    if kind == "raise":
        raise ValueError(value)
    if kind == "die":
        os._exit(value)
    with open(value, "a") as file:
        affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        file.write(json.dumps([os.getpid(), affinity]) + "\n")
    time.sleep(0.05)
