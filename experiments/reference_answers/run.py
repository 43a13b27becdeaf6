"""Make the reference answers of the bundled targets: long NUTS runs, bridge sampling, exact marginals.

    python experiments/reference_answers/run.py [--smoke] [NAME ...]

Needs `pip install -e '.[data,arviz,mcmc]'`. Writes vi_kit/targets/reference/NAME.{json,npz}, the diagnostics
in results.json and their table in README.md. With --smoke it runs a few draws and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from exact import exact_marginals, quantile
from scipy import special, stats

import vi_kit.targets
from vi_kit.targets._reference import (
    QUANTILE_LEVELS,
    Reference,
    coordinate_labels,
    reference_from_draws,
    write_reference,
)
from vi_kit.targets._registry import load, names

HERE = Path(__file__).parent
STORE = Path(vi_kit.targets.__file__).parent / "reference"
STORED_DRAWS = 1_000
EXACT = ("correlated_gaussian", "funnel", "banana", "mixture")


@dataclass(frozen=True)
class Config:
    """One NUTS run: rounds of draws are added until R-hat and ESS pass, or `max_rounds` is reached."""

    seed: int = 20_260
    num_chains: int = 4
    num_warmup: int = 1_500
    draws_per_round: int = 10_000
    max_rounds: int = 12
    target_acceptance: float = 0.98
    max_rhat: float = 1.005
    min_ess: float = 40_000.0
    proposal_degrees_of_freedom: float = 8.0


def run_nuts(target: Any, config: Config) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return z (chains, draws, dim), its log density (chains, draws) and the diagnostics."""
    import blackjax

    def warm_up(target: Any, key: Any) -> Any:
        start_key, key = jax.random.split(key)
        start = 0.5 * jax.random.normal(start_key, (target.dim,))
        adaptation = blackjax.window_adaptation(
            blackjax.nuts,
            target.log_density,
            is_mass_matrix_diagonal=False,
            target_acceptance_rate=config.target_acceptance,
        )
        (state, parameters), _ = adaptation.run(key, start, num_steps=config.num_warmup)
        return state, parameters

    def go_on(target: Any, state: Any, parameters: Any, key: Any) -> Any:
        kernel = blackjax.nuts(target.log_density, **parameters).step

        def step(state: Any, key: Any) -> Any:
            state, info = kernel(key, state)
            kept = (state.position, state.logdensity, info.is_divergent, info.num_integration_steps)
            return state, kept

        return jax.lax.scan(step, state, jax.random.split(key, config.draws_per_round))

    key = jax.random.key(config.seed)
    warm_key, key = jax.random.split(key)
    states, parameters = jax.jit(jax.vmap(warm_up, in_axes=(None, 0)))(
        target, jax.random.split(warm_key, config.num_chains)
    )
    run_round = jax.jit(jax.vmap(go_on, in_axes=(None, 0, 0, 0)))
    rounds = []
    for index in range(config.max_rounds):
        keys = jax.random.split(jax.random.fold_in(key, index), config.num_chains)
        states, kept = run_round(target, states, parameters, keys)
        rounds.append(jax.tree.map(np.asarray, kept))
        z, log_density, divergent, leapfrogs = (np.concatenate(part, axis=1) for part in zip(*rounds, strict=True))
        diagnostics = convergence(coordinates(target, z))
        passed = diagnostics["max_rhat"] < config.max_rhat and diagnostics["min_bulk_ess"] > config.min_ess
        if passed:
            break
    diagnostics |= {
        "passed": passed,
        "chains": config.num_chains,
        "draws_per_chain": z.shape[1],
        "divergences": int(divergent.sum()),
        "leapfrog_steps": int(leapfrogs.sum()),
    }
    return z, log_density, diagnostics


def coordinates(target: Any, z: np.ndarray) -> dict[str, np.ndarray]:
    """Map z (..., dim) to every reported coordinate in the user's space, each of shape (...)."""
    report = jax.jit(jax.vmap(target.report))(jnp.asarray(z.reshape(-1, target.dim)))
    out = {}
    for name, values in report.items():
        labels = coordinate_labels(name, values.shape[1:])
        columns = np.asarray(values).reshape(len(values), -1)
        out |= {label: columns[:, i].reshape(z.shape[:-1]) for i, label in enumerate(labels)}
    return out


def convergence(values: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the worst rank-normalized R-hat and the least bulk and tail ESS over the coordinates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    stacked = arviz.convert_to_dataset({"x": np.stack(list(values.values()), axis=-1)})
    return {
        "max_rhat": float(arviz.rhat(stacked)["x"].max()),
        "min_bulk_ess": float(arviz.ess(stacked, method="bulk")["x"].min()),
        "min_tail_ess": float(arviz.ess(stacked, method="tail")["x"].min()),
    }


def bridge(target: Any, z: np.ndarray, log_density: np.ndarray, config: Config) -> tuple[float, float]:
    """Return log Z and its standard error by bridge sampling (Meng and Wong 1996) in unconstrained space.

    The proposal is a Student t with moments of the first half of each chain; the second half enters
    the bridge. The standard error is Frühwirth-Schnatter's (2004), autocorrelation included.
    """
    import arviz

    half = z.shape[1] // 2
    dim = z.shape[-1]
    fitted = z[:, :half].reshape(-1, dim)
    degrees = config.proposal_degrees_of_freedom
    shape = np.cov(fitted.T) * (degrees - 2.0) / degrees
    proposal = stats.multivariate_t(fitted.mean(0), shape, df=degrees, seed=config.seed)
    posterior, log_p = z[:, half:], log_density[:, half:]
    ratio_p = log_p - proposal.logpdf(posterior)
    proposed = proposal.rvs(posterior.shape[0] * posterior.shape[1])
    density = jax.jit(lambda target, zs: jax.lax.map(target.log_density, zs, batch_size=16))
    ratio_g = np.asarray(density(target, jnp.asarray(proposed))) - proposal.logpdf(proposed)
    n_g = len(proposed)
    n_p = min(float(arviz.ess(ratio_p)), float(ratio_p.size))
    log_s_p, log_s_g = np.log(n_p / (n_p + n_g)), np.log(n_g / (n_p + n_g))
    log_z = float(np.median(ratio_p))
    for _ in range(1_000):
        above = special.logsumexp(ratio_g - np.logaddexp(log_s_p + ratio_g, log_s_g + log_z)) - np.log(n_g)
        below = special.logsumexp(-np.logaddexp(log_s_p + ratio_p, log_s_g + log_z)) - np.log(ratio_p.size)
        previous, log_z = log_z, float(above - below)
        if abs(log_z - previous) < 1e-12:
            break
    else:
        raise RuntimeError("the bridge iteration did not converge")
    f_g = np.exp(ratio_g - log_z - np.logaddexp(log_s_p + ratio_g - log_z, log_s_g))
    f_p = np.exp(-np.logaddexp(log_s_p + ratio_p - log_z, log_s_g))
    squared = f_g.var() / f_g.mean() ** 2 / n_g + f_p.var() / f_p.mean() ** 2 / float(arviz.ess(f_p))
    return log_z, float(np.sqrt(squared))


def versions() -> dict[str, str]:
    """Return what the numbers were made with."""
    return {name: metadata.version(name) for name in ("jax", "blackjax", "arviz", "scipy", "numpy")}


def by_nuts(name: str, config: Config) -> tuple[Reference, dict[str, Any]]:
    """Return the answer of a real target."""
    # The centered eight schools do not mix; theirs is the non-centered run in their own variables.
    sampled = load("eight_schools" if name == "eight_schools_centered" else name)
    z, log_density, diagnostics = run_nuts(sampled, config)
    log_z, standard_error = bridge(sampled, z, log_density, config)
    values = coordinates(sampled, z)
    if name == "eight_schools_centered":
        values = {label: v for label, v in values.items() if not label.startswith("eta")}
    flat = {label: v.reshape(-1) for label, v in values.items()}
    used = versions()
    transformed = ", non-centered and transformed" if name == "eight_schools_centered" else ""
    provenance = (
        f"blackjax {used['blackjax']} NUTS, float64, dense metric, jax {used['jax']}: "
        f"{config.num_chains} chains of {diagnostics['draws_per_chain']} draws after {config.num_warmup} "
        f"of warm-up{transformed}, seed {config.seed}; "
        f"R-hat at most {diagnostics['max_rhat']:.5f}, bulk ESS at least {diagnostics['min_bulk_ess']:.0f}, "
        f"{diagnostics['divergences']} divergences (arviz {used['arviz']}). log Z by bridge sampling with a "
        "Student t proposal in unconstrained space. Made by experiments/reference_answers/run.py."
    )
    reference = reference_from_draws(
        flat, provenance=provenance, log_normalizer=log_z, log_normalizer_standard_error=standard_error
    )
    total = z.shape[0] * z.shape[1]
    rows = np.linspace(0, total - 1, STORED_DRAWS).round().astype(int)
    reference = replace(reference, draws={label: v[rows] for label, v in flat.items()})
    return reference, {
        "method": "nuts",
        **diagnostics,
        "log_z": log_z,
        "log_z_standard_error": standard_error,
    }


def exactly(name: str, config: Config) -> tuple[Reference, dict[str, Any]]:
    """Return the answer of a synthetic target."""
    target = load(name)
    marginals = exact_marginals(name, target)

    keys = jax.random.split(jax.random.key(config.seed), STORED_DRAWS)
    z = jax.jit(jax.vmap(lambda key: target.unconstrain(target.sample(key))))(keys)
    reference = Reference(
        mean={label: float(m[0]) for label, m in marginals.items()},
        sd={label: float(m[1]) for label, m in marginals.items()},
        quantiles={
            label: (
                quantile(m, QUANTILE_LEVELS[0]),
                quantile(m, QUANTILE_LEVELS[1]),
                quantile(m, QUANTILE_LEVELS[2]),
            )
            for label, m in marginals.items()
        },
        log_normalizer=0.0,
        log_normalizer_standard_error=0.0,
        draws=coordinates(target, np.asarray(z)),
        provenance=f"exact: moments in closed form, quantiles from the marginal distribution functions; "
        f"{STORED_DRAWS} exact draws, seed {config.seed}. Made by experiments/reference_answers/run.py.",
    )
    return reference, {"method": "exact", "passed": True, "log_z": 0.0, "log_z_standard_error": 0.0}


def table(results: dict[str, Any]) -> str:
    """Return the README's table."""
    rows = [
        "| target | method | chains x draws | R-hat | bulk ESS | tail ESS | divergent | log Z | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names():
        r = results["targets"].get(name)
        if r is None:
            continue
        if r["method"] == "exact":
            rows.append(f"| {name} | exact | | | | | | 0 | {r['seconds']:.0f} |")
            continue
        rows.append(
            f"| {name} | NUTS | {r['chains']} x {r['draws_per_chain']:,} | {r['max_rhat']:.5f} | "
            f"{r['min_bulk_ess']:,.0f} | {r['min_tail_ess']:,.0f} | {r['divergences']} | "
            f"{r['log_z']:.4f} ± {r['log_z_standard_error']:.4f} | {r['seconds']:.0f} |"
        )
    return "\n".join(rows)


def main(chosen: list[str], config: Config, *, write: bool) -> dict[str, Any]:
    """Run the chosen targets (all where none is named) and, with `write`, store the answers."""
    jax.config.update("jax_enable_x64", True)
    path = HERE / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"targets": {}}
    for name in chosen or names():
        started = time.perf_counter()
        reference, row = (exactly if name in EXACT else by_nuts)(name, config)
        row |= {"seconds": time.perf_counter() - started}
        print(name, json.dumps(row), flush=True)
        if not write:
            continue
        if not row["passed"]:
            raise RuntimeError(f"{name}: R-hat or ESS did not pass after {config.max_rounds} rounds: {row}")
        STORE.mkdir(exist_ok=True)
        write_reference(reference, STORE / f"{name}.json", STORE / f"{name}.npz")
        results["targets"][name] = {**row, "config": asdict(config), "versions": versions()}
        results["device"] = str(jax.devices()[0])
        path.write_text(json.dumps(results, indent=1) + "\n")
        readme = HERE / "README.md"
        head, mark, _ = readme.read_text().partition("<!-- table, written by run.py -->\n")
        readme.write_text(f"{head}{mark}\n{table(results)}\n")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="targets to run (default: all)")
    parser.add_argument("--smoke", action="store_true", help="a few draws, nothing written")
    arguments = parser.parse_args()
    smoke = Config(num_warmup=50, draws_per_round=50, max_rounds=1)
    main(arguments.names, smoke if arguments.smoke else Config(), write=not arguments.smoke)
