"""What every test runs under: strict JAX, a fixed key for each test, and no silent skips where CI is set."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

import jax

jax.config.update("jax_enable_x64", False)  # the `x64` fixture has its own tests
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_num_cpu_devices", 2)  # enough to see whether sharded data give the unsharded answer
if os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # only where someone asked for it; nothing is written by default
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

UNDER_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
ALLOWED_SKIP = "folder"  # a data folder beside the repository that is not there


@pytest.fixture
def key(request: pytest.FixtureRequest) -> jax.Array:
    """A typed key that is the test's own: another one in each test, the same one every day."""
    return jax.random.fold_in(jax.random.key(0), zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test in double precision."""
    with jax.enable_x64(True):
        yield


def _refuse_skip(report: Any) -> None:
    """Turn a skip into a failure, unless it says that a data folder outside the repository is not there."""
    if not UNDER_CI or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if ALLOWED_SKIP not in reason:
        report.outcome = "failed"
        report.longrepr = f"under CI a skip is a failure unless it is for a {ALLOWED_SKIP} that is not there: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    _refuse_skip(report)
    return report


_COMPILED = [0]


def _count_compiles(event: str, _: float, **__: Any) -> None:
    _COMPILED[0] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count_compiles)


@pytest.fixture
def compiles() -> Callable[[], int]:
    """Return how many programs have been compiled so far."""
    return lambda: _COMPILED[0]


TO_THE_LAST_BITS = {"kl", "divergences"}  # what is claimed of these holds for programs as users compile them


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Compile with little optimization, which takes most of the suite's time, except where rounding is the point."""
    jax.config.update("jax_disable_most_optimizations", TO_THE_LAST_BITS.isdisjoint(item.path.parts))
    return (yield)


MOST_PROGRAMS = 400  # each holds tens of memory maps; the kernel allows a process 65,530, and XLA crashes beyond
_CLEARED = [0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield
    if _COMPILED[0] - _CLEARED[0] > MOST_PROGRAMS:
        jax.clear_caches()
        _CLEARED[0] = _COMPILED[0]
