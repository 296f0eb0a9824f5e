"""How the tests run: on the CPU as 8 devices, quickly compiled, and that kept. Subprocesses inherit all of it.

Compiling is most of the time of the tests, and what LLVM optimises half of it. So it does not, except in those marked
``optimized``: of the ops' numerics, and of what TPUs are given. ``make smoke`` trains and compares as users do.
"""

import gc
import itertools
import os
import signal
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "jax"

# JAX reads these once, when it is imported: importing subquad does that already, where its types are checked.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax  # noqa: E402
from subquad.experiments import xla  # noqa: E402

xla.sound()


def pytest_configure(config: pytest.Config) -> None:
    """Lets two foreign warnings pass, and Ctrl-C through, which a shell's background jobs ignore.

    JAX's cache writes in place, so one worker may read what another is still writing; JAX then warns and compiles.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache:UserWarning")
    # A read that fails leaves Orbax's coroutines to the garbage collector, which complains in whichever test it runs.
    orbax = "ignore:Exception ignored in. (None|<coroutine object .*read):pytest.PytestUnraisableExceptionWarning"
    config.addinivalue_line("filterwarnings", orbax)


@pytest.fixture(autouse=True)
def optimization(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles as users do, in this process and those it starts, where a test is marked ``optimized``."""
    quick = request.node.get_closest_marker("optimized") is None
    jax.config.update("jax_disable_most_optimizations", quick)
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(quick)))


def pytest_collection_finish() -> None:
    """Spares the garbage collector what stays to the end: it took a tenth of the time, mostly while JAX traces."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts together what is about one mixer, whose programs several tests share."""
    places = [i for i, item in enumerate(items) if item.path.stem in ("test_laws", "test_layers")]
    name = lambda item: item.callspec.params.get("name", "") if hasattr(item, "callspec") else ""  # noqa: E731
    for i, item in zip(places, sorted((items[i] for i in places), key=name), strict=True):
        items[i] = item


finished = itertools.count(1)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Lets compiled programs go from time to time, of which a process can map so many before it crashes.

    What collecting may lead to are warnings, which are filtered here.
    """
    if nextitem is None or next(finished) % 50 == 0 or nextitem.path != item.path:
        jax.clear_caches()
        gc.collect()
