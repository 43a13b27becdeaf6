"""What a closed form costs beside distrax's: compiled, and called on objects from Python."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np

import vi_kit as vk

Call = Callable[[], Any]


def _problems(smoke: bool) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]]]:
    """Return, by name, how distrax builds the distribution and the arrays of p and q."""
    rng = np.random.default_rng(0)
    batch, dim, dense, classes = (10, 4, 3, 5) if smoke else (10_000, 100, 50, 1_000)
    large, rows = 1_000_000, 64

    def positive(*shape: int) -> Any:
        return jnp.asarray(np.exp(rng.normal(size=shape)), jnp.float32)

    def real(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def factor() -> Any:
        return jnp.tril(0.1 * real(dense, dense), -1) + jnp.diag(positive(dense))

    found = {
        f"Normal, {batch:,}": (distrax.Normal, (real(batch), positive(batch)), (real(batch), positive(batch))),
        f"MultivariateNormalDiag, d = {dim}": (
            distrax.MultivariateNormalDiag, (real(dim), positive(dim)), (real(dim), positive(dim))
        ),
        f"MultivariateNormalTri, d = {dense}": (
            distrax.MultivariateNormalTri, (real(dense), factor()), (real(dense), factor())
        ),
        f"Normal, {large:,}": (distrax.Normal, (real(large), positive(large)), (real(large), positive(large))),
        f"Categorical, {classes:,} classes": (distrax.Categorical, (real(classes),), (real(classes),)),
        f"Categorical, {rows} × {classes:,} classes": (
            distrax.Categorical, (real(rows, classes),), (real(rows, classes),)
        ),
        f"Gamma, {batch:,}": (distrax.Gamma, (positive(batch), positive(batch)), (positive(batch), positive(batch))),
        f"Beta, {batch:,}": (distrax.Beta, (positive(batch), positive(batch)), (positive(batch), positive(batch))),
        f"Dirichlet of 5, {batch:,}": (distrax.Dirichlet, (positive(batch, 5),), (positive(batch, 5),)),
    }  # fmt: skip
    return dict(list(found.items())[:1]) if smoke else found


def alternate(calls: dict[str, Call], repeats: int) -> dict[str, tuple[float, float]]:
    """Run all in turn; return median seconds and the median ratio to the last."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    inner = 1
    while repeats > 1:  # long enough to be timed
        start = time.perf_counter()
        for _ in range(inner):
            jax.block_until_ready(next(reversed(calls.values()))())
        if time.perf_counter() - start > 2e-3:
            break
        inner *= 2
    for i in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(inner):
                jax.block_until_ready(call())
            if i:  # the first warms up
                seconds[name].append((time.perf_counter() - start) / inner)
    base = seconds[list(calls)[-1]]
    return {name: (statistics.median(x), float(np.median(np.divide(x, base)))) for name, x in seconds.items()}


def compiled(smoke: bool) -> list[dict[str, Any]]:
    """Time the compiled value, and value with all gradients, from arrays: the median of rounds, compiled anew."""
    rounds = [_one_round(smoke) for _ in range(1 if smoke else 5)]
    return [
        {
            name: x if isinstance(x, str) else _three(statistics.median(row[name] for row in rows))
            for name, x in rows[0].items()
        }
        for rows in zip(*rounds, strict=True)
    ]


def _one_round(smoke: bool) -> list[dict[str, Any]]:
    rows = []
    for title, (build, a, b) in _problems(smoke).items():
        row: dict[str, Any] = {"pair": title}
        for what in ("value", "value and gradients"):
            calls: dict[str, Call] = {}
            for name, kl in (("vi_kit", vk.kl_divergence), ("distrax", lambda p, q: p.kl_divergence(q))):

                def value(a: Any, b: Any, kl: Any = kl, build: Any = build) -> Any:
                    return kl(build(*a), build(*b))

                def gradients(a: Any, b: Any, value: Any = value) -> Any:
                    return jax.value_and_grad(lambda a, b: jnp.sum(value(a, b)), (0, 1))(a, b)

                program = jax.jit(value if what == "value" else gradients).lower(a, b).compile()
                calls[name] = lambda program=program, a=a, b=b: program(a, b)
            times = alternate(calls, 1 if smoke else 21)
            row[f"{what}, µs"] = 1e6 * times["vi_kit"][0]
            row[f"{what}, distrax µs"] = 1e6 * times["distrax"][0]
            row[f"{what}, ratio"] = times["vi_kit"][1]
        rows.append(row)
    return rows


def _three(x: float) -> float:
    return float(f"{x:.3g}")


def calls(smoke: bool) -> list[dict[str, Any]]:
    """Time a call on objects that were just built, and count what is compiled by the second call."""
    count = [0]

    def listen(event: str, _: float, **__: Any) -> None:
        count[0] += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    rows = []
    for title, (build, a, b) in _problems(smoke).items():
        row: dict[str, Any] = {"pair": title}
        every = {"vi_kit": vk.kl_divergence, "distrax": lambda p, q: p.kl_divergence(q)}
        runs = {name: (lambda kl=kl, build=build, a=a, b=b: kl(build(*a), build(*b))) for name, kl in every.items()}
        for name, call in runs.items():
            before = count[0]
            jax.block_until_ready(call())
            row[f"programs, {name}"] = count[0] - before
            before = count[0]
            jax.block_until_ready(call())
            row[f"programs of the second call, {name}"] = count[0] - before
        times = alternate(runs, 1 if smoke else 41)
        row["vi_kit, µs"], row["distrax, µs"] = (_three(1e6 * times[name][0]) for name in every)
        row["ratio"] = _three(times["vi_kit"][1])
        rows.append(row)
    return rows
