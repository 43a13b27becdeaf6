"""What does a KL on arrays cost, in time and in temporary memory, beside what one would use otherwise?

All in one process, runs alternated; times are medians, and a ratio is the median of the ratios of neighboring runs.
Temporary memory is what XLA plans for the compiled program.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import Call, Row, alternate, compiled, lines, rounded, show

from vi_kit import kl

HERE = Path(__file__).parent


def logits(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of logits."""
    rng = np.random.default_rng(0)
    p = 3 * rng.normal(size=(rows, classes))
    return p.astype(np.float32), (p + 0.5 * rng.normal(size=p.shape)).astype(np.float32)


def in_jax() -> tuple[dict[str, Callable[..., jax.Array]], list[str]]:
    """Return KL(p‖q) from logits by every JAX library, and the names of those not installed."""
    from distrax import Categorical
    from optax import losses

    log_softmax, softmax = jax.nn.log_softmax, jax.nn.softmax
    functions = {
        "vi_kit": kl.categorical,
        "optax": lambda p, q: losses.kl_divergence_with_log_targets(log_softmax(q), log_softmax(p)),
        "distrax": lambda p, q: Categorical(logits=p).kl_divergence(Categorical(logits=q)),
    }
    try:
        from numpyro import distributions as dist

        functions["NumPyro"] = lambda p, q: dist.kl_divergence(
            dist.Categorical(probs=softmax(p)), dist.Categorical(probs=softmax(q))
        )
    except ImportError:
        return functions, ["numpyro"]
    return functions, []


def in_torch(p: np.ndarray, q: np.ndarray) -> dict[str, dict[str, Call]]:
    """Return the same by PyTorch, nothing where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    p_logits, q_logits = torch.tensor(p), torch.tensor(q)

    def value(q_logits: Any) -> Any:
        return torch.nn.functional.kl_div(
            q_logits.log_softmax(-1), p_logits.log_softmax(-1), reduction="batchmean", log_target=True
        )

    def value_and_gradient() -> Any:
        leaf = q_logits.detach().requires_grad_()
        result = value(leaf)
        result.backward()
        return result.item(), leaf.grad.numpy()

    return {"value": {"PyTorch": lambda: value(q_logits).item()}, "gradient": {"PyTorch": value_and_gradient}}


def compare(functions: dict[str, Callable[..., jax.Array]], p: np.ndarray, q: np.ndarray, repeats: int, base: str,
            others: dict[str, dict[str, Call]]) -> list[Row]:  # fmt: skip
    """Time the mean over rows, alone and with its gradient to q's logits."""
    rows = []
    arrays = jnp.asarray(p), jnp.asarray(q)
    for kind, what in (("value", "value"), ("gradient", "value and gradient to q")):
        wanted = {name: _mean(function, gradient=kind == "gradient") for name, function in functions.items()}
        calls, memory = compiled(wanted, *arrays)
        for name, row in alternate(calls | others.get(kind, {}), repeats, base).items():
            rows.append({"what": what, "by": name, **row, "temporary MiB": memory.get(name)})
    return rows


def _mean(function: Callable[..., jax.Array], *, gradient: bool) -> Callable[..., Any]:
    def mean(p: jax.Array, q: jax.Array) -> jax.Array:
        return jnp.mean(function(p, q))

    return jax.value_and_grad(mean, argnums=1) if gradient else mean


def dense(smoke: bool) -> tuple[list[Row], list[str]]:
    """Compare KL of dense logits, 512 × 32 000."""
    p, q = logits(*((8, 100) if smoke else (512, 32_000)))
    functions, missing = in_jax()
    others = in_torch(p, q)
    missing = missing if others else [*missing, "torch"]
    return compare(functions, p, q, 1 if smoke else 25, "optax", others), missing


def jensen_shannon(smoke: bool) -> tuple[list[Row], list[str]]:
    """Compare Jensen–Shannon of dense logits with what a user would write."""

    def probabilities(p: jax.Array, q: jax.Array) -> jax.Array:
        p, q = jax.nn.softmax(p), jax.nn.softmax(q)
        m = 0.5 * (p + q)
        rel_entr = jax.scipy.special.rel_entr
        return 0.5 * jnp.sum(rel_entr(p, m) + rel_entr(q, m), -1)

    def log_probabilities(p: jax.Array, q: jax.Array) -> jax.Array:
        log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
        log_m = jnp.logaddexp(log_p, log_q) - np.log(2)
        return 0.5 * jnp.sum(jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m), -1)

    p, q = logits(*((8, 100) if smoke else (512, 32_000)))
    functions = {"vi_kit": kl.jensen_shannon, "logaddexp": log_probabilities, "rel_entr": probabilities}
    return compare(functions, p, q, 1 if smoke else 15, "logaddexp", {}), []


def _naive(p_hidden: Any, p_weight: Any, q_hidden: Any, q_weight: Any) -> jax.Array:
    from optax import losses

    log_p, log_q = (jax.nn.log_softmax(h @ w.T) for h, w in ((p_hidden, p_weight), (q_hidden, q_weight)))
    return losses.kl_divergence_with_log_targets(log_q, log_p)


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def fused(smoke: bool) -> tuple[list[Row], list[str]]:
    """Compare the output layer with KL fused against logits first: gradients to q's hidden states and weights."""
    ways = {
        "vi_kit fused_linear": kl.fused_linear,
        "naive: logits, then optax": _naive,
        "naive: logits, then vi_kit": lambda a, b, c, d: kl.categorical(a @ b.T, c @ d.T),
        "vi_kit fused_linear, Jensen–Shannon": lambda *arrays: kl.fused_linear(*arrays, beta=0.5),
    }

    def wanted(function: Any) -> Any:
        return jax.value_and_grad(lambda a, b, c, d: jnp.mean(function(a, b, c, d)), argnums=(2, 3))

    def shapes(rows: int, hidden: int, classes: int) -> list[Any]:
        return [jax.ShapeDtypeStruct((n, hidden), jnp.float32) for n in (rows, classes, rows, classes)]

    timed, planned = (
        ((16, 8, 100), ()) if smoke else ((1_024, 512, 32_064), ((2_048, 4_096, 128_256), (8_192, 4_096, 128_256)))
    )
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=s.shape), s.dtype) * timed[1] ** -0.25 for s in shapes(*timed)]
    calls, memory = compiled({name: wanted(function) for name, function in ways.items()}, *arrays)
    rows = []
    for name, row in alternate(calls, 1 if smoke else 7, "naive: logits, then optax").items():
        rows.append({"shape": _times(timed), "by": name, **row, "temporary MiB": memory[name]})
    for size in planned:  # compiled, not run
        _, memory = compiled({name: wanted(function) for name, function in ways.items()}, *shapes(*size))
        rows += ({"shape": _times(size), "by": name, "temporary MiB": mib} for name, mib in memory.items())
    return rows, []


def fisher(smoke: bool) -> tuple[list[Row], list[str]]:
    """Compare the Fisher-vector product of a perceptron 64-256-256-18 with differentiating KL twice."""
    sizes, batch = ((4, 8, 3), 16) if smoke else ((64, 256, 256, 18), 2_048)
    rng = np.random.default_rng(0)
    states = jnp.asarray(rng.normal(size=(batch, sizes[0])), jnp.float32)
    shapes = list(itertools.pairwise(sizes))
    params, vector = (
        [(jnp.asarray(rng.normal(size=s) / s[0] ** 0.5, jnp.float32), jnp.zeros(s[1])) for s in shapes]
        for _ in range(2)
    )

    def policy(params: Any, states: jax.Array) -> jax.Array:
        x = states
        for weight, bias in params[:-1]:
            x = jnp.tanh(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    def gauss_newton(params: Any, vector: Any, states: jax.Array) -> Any:
        return kl.fisher_vector_product(lambda params: policy(params, states), params, vector)

    def twice(params: Any, vector: Any, states: jax.Array) -> Any:
        from optax import losses

        log_p = jax.lax.stop_gradient(jax.nn.log_softmax(policy(params, states)))

        def mean(params: Any) -> jax.Array:
            return jnp.mean(losses.kl_divergence_with_log_targets(jax.nn.log_softmax(policy(params, states)), log_p))

        return jax.jvp(jax.grad(mean), (params,), (vector,))[1]

    ways = {"vi_kit fisher_vector_product": gauss_newton, "jvp of the gradient": twice}
    calls, memory = compiled(ways, params, vector, states)
    rows = alternate(calls, 1 if smoke else 31, "jvp of the gradient")
    return [{"by": name, **row, "temporary MiB": memory[name]} for name, row in rows.items()], []


def samples(smoke: bool) -> tuple[list[Row], list[str]]:
    """Compare nearest neighbors with scipy's tree: 10 000 draws in 20 dimensions."""
    from scipy.spatial import cKDTree

    n, dim, k = (200, 3, 5) if smoke else (10_000, 20, 5)
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.normal(size=(n, dim))), np.float32(0.5 + 1.5**0.5 * rng.normal(size=(n, dim)))

    def tree(workers: int = 1) -> float:
        within = cKDTree(x).query(x, k + 1, workers=workers)[0][:, -1]
        across = cKDTree(y).query(x, k, workers=workers)[0][:, -1]
        return dim * float(np.mean(np.log(across / within))) + float(np.log(n / (n - 1)))

    arrays = jnp.asarray(x), jnp.asarray(y)
    calls, memory = compiled({"vi_kit from_samples": lambda x, y: kl.from_samples(x, y, k=k)}, *arrays)
    estimate = calls["vi_kit from_samples"]()
    calls |= {"scipy cKDTree": tree, "scipy cKDTree, all cores": lambda: tree(-1)}
    found = {"vi_kit from_samples": float(estimate.value), "scipy cKDTree": tree()}
    rows = alternate(calls, 1 if smoke else 5, "scipy cKDTree")
    return [
        {"by": name, **row, "temporary MiB": memory.get(name), "estimate": found.get(name)}
        for name, row in rows.items()
    ], []


def imports(smoke: bool) -> tuple[list[Row], list[str]]:
    """Time importing on top of jax, each in a fresh process."""
    rows = []
    for module in ("vi_kit.kl", "optax", "distrax"):
        program = (
            f"import time, jax, jax.numpy; a = time.perf_counter(); import {module}; print(time.perf_counter() - a)"
        )
        command = [sys.executable, "-c", program]
        # Bytecode is kept, as for any user; the first process writes it.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        _, *taken = (
            float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout)
            for _ in range(2 if smoke else 10)
        )
        rows.append({"import": module, "milliseconds": 1e3 * statistics.median(taken), "most": 1e3 * max(taken)})
        if smoke:
            break
    return rows, []


SECTIONS: dict[str, Callable[[bool], tuple[list[Row], list[str]]]] = {
    "dense": dense,
    "jensen_shannon": jensen_shannon,
    "fused": fused,
    "fisher": fisher,
    "samples": samples,
    "imports": imports,
}


def main() -> None:
    """Measure, print and write results.json and the figure beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small shapes, nothing written")
    parser.add_argument("--only", choices=SECTIONS, help="one section, nothing written")
    arguments = parser.parse_args()
    packages = ("vi_kit", "optax", "distrax", "numpyro", "torch", "scipy")
    results: dict[str, Any] = {"question": __doc__.splitlines()[0], "setting": {"dtype": "float32"}}
    results["machine"] = {
        "device": jax.devices()[0].device_kind,
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }
    missing: list[str] = []
    for name, section in SECTIONS.items():
        if arguments.only in (None, name):
            rows, absent = section(arguments.smoke)
            results[name] = [{k: rounded(v) for k, v in row.items()} for row in rows]
            missing += absent
            show(section.__doc__ or name, results[name])
    if missing:
        print("\nnot installed, so not compared:", ", ".join(missing))
    results["not_installed"] = missing
    found = {name: version(name) for name in packages if name not in missing}
    results["versions"] = {"python": platform.python_version(), "jax": jax.__version__, **found}
    if not arguments.smoke and not arguments.only:
        (HERE / "results.json").write_text(lines(results))
        from figure import draw

        draw(results, HERE / "speed.png")


if __name__ == "__main__":
    main()
