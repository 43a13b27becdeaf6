"""What a careful user would write for one family: draws in one array, no library but JAX and optax.

Each family is a start and a function of parameters and a key that returns draws, their log densities (with the
derivative in the draws alone, as sticking the landing has it) and the weight of every draw in the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logsumexp

RANK, BLOCK, COMPONENTS, LAYERS, WIDTH, BOUND = 5, 5, 3, 10, 32, 2.0


class ByHand(NamedTuple):
    """One family: parameters to start from, and draws with log densities and weights."""

    start: Callable[[jax.Array, int], dict[str, jax.Array]]
    draw: Callable[[dict[str, jax.Array], jax.Array, int], tuple[jax.Array, jax.Array, jax.Array | None]]


fixed = jax.lax.stop_gradient


def _located(dim: int) -> dict[str, jax.Array]:
    return {"mean": jnp.zeros(dim), "log_scale": jnp.zeros(dim)}


# Mean-field: z = m + s ε.


def _mean_field_start(key: jax.Array, dim: int) -> dict[str, jax.Array]:
    del key
    return _located(dim)


def _mean_field(p: dict[str, jax.Array], key: jax.Array, num: int) -> Any:
    z = p["mean"] + jnp.exp(p["log_scale"]) * jax.random.normal(key, (num, p["mean"].shape[0]))
    q = fixed(p)
    y = (z - q["mean"]) * jnp.exp(-q["log_scale"])
    return z, -0.5 * jnp.sum(y * y, axis=1) - jnp.sum(q["log_scale"]), None


# Low rank plus diagonal: z = m + s (ε + C η), the inverse by Woodbury.


def _low_rank_start(key: jax.Array, dim: int) -> dict[str, jax.Array]:
    return {**_located(dim), "coupling": 0.01 / jnp.sqrt(dim) * jax.random.normal(key, (dim, RANK))}


def _low_rank(p: dict[str, jax.Array], key: jax.Array, num: int) -> Any:
    dim = p["mean"].shape[0]
    noise = jax.random.normal(key, (num, dim + RANK))
    z = p["mean"] + jnp.exp(p["log_scale"]) * (noise[:, :dim] + noise[:, dim:] @ p["coupling"].T)
    q = fixed(p)
    y = (z - q["mean"]) * jnp.exp(-q["log_scale"])
    projected = y @ q["coupling"]
    factor = jnp.linalg.cholesky(jnp.eye(RANK) + q["coupling"].T @ q["coupling"])
    squares = jnp.sum(y * y, axis=1) - jnp.sum(projected * cho_solve((factor, True), projected.T).T, axis=1)
    return z, -0.5 * squares - jnp.sum(q["log_scale"]) - jnp.sum(jnp.log(jnp.diagonal(factor))), None


# Blocks of equal size, each with a lower factor.

_ROWS, _COLUMNS = np.tril_indices(BLOCK, -1)


def _block_start(key: jax.Array, dim: int) -> dict[str, jax.Array]:
    del key
    return {**_located(dim), "coupling": jnp.zeros((dim // BLOCK, len(_ROWS)))}


def _block_factors(p: dict[str, jax.Array]) -> jax.Array:
    count = p["coupling"].shape[0]
    unit = jnp.tile(jnp.eye(BLOCK), (count, 1, 1)).at[:, _ROWS, _COLUMNS].set(p["coupling"])
    return jnp.exp(p["log_scale"]).reshape(count, BLOCK, 1) * unit


def _block_diagonal(p: dict[str, jax.Array], key: jax.Array, num: int) -> Any:
    count, dim = p["coupling"].shape[0], p["mean"].shape[0]
    noise = jax.random.normal(key, (num, count, BLOCK))
    z = p["mean"] + jnp.einsum("bij,nbj->nbi", _block_factors(p), noise).reshape(num, dim)
    q = fixed(p)
    centered = (z - q["mean"]).reshape(num, count, BLOCK).transpose(1, 2, 0)
    white = solve_triangular(_block_factors(q), centered, lower=True)
    return z, -0.5 * jnp.sum(white * white, axis=(0, 1)) - jnp.sum(q["log_scale"]), None


# Independent Student-t coordinates, degrees of freedom learned: 2 + exp(r), by JAX's own implicit gamma derivatives.


def _student_t_start(key: jax.Array, dim: int) -> dict[str, jax.Array]:
    del key
    return {**_located(dim), "log_excess": jnp.full(dim, jnp.log(28.0))}


def _student_t(p: dict[str, jax.Array], key: jax.Array, num: int) -> Any:
    normal_key, gamma_key = jax.random.split(key)
    df = 2 + jnp.exp(p["log_excess"])
    # A key a draw: of one array of gamma variables JAX draws one after the other, on a CPU.
    log_gamma = jax.vmap(lambda k: jax.random.loggamma(k, 0.5 * df))(jax.random.split(gamma_key, num))
    log_gamma = log_gamma - jnp.log(0.5 * df)
    z = p["mean"] + jnp.exp(p["log_scale"]) * jax.random.normal(normal_key, log_gamma.shape) * jnp.exp(-0.5 * log_gamma)
    q = fixed(p)
    return z, jnp.sum(jax.scipy.stats.t.logpdf(z, fixed(df), q["mean"], jnp.exp(q["log_scale"])), axis=1), None


# A mixture of diagonal Gaussians, draws of every component.


def _mixture_start(key: jax.Array, dim: int) -> dict[str, jax.Array]:
    spread = jax.random.normal(key, (COMPONENTS, dim))
    return {
        "mean": 0.8 * (spread - spread.mean(axis=0)) / spread.std(axis=0),
        "log_scale": jnp.full((COMPONENTS, dim), jnp.log(0.6)),
        "logits": jnp.zeros(COMPONENTS),
    }


def _mixture(p: dict[str, jax.Array], key: jax.Array, num: int) -> Any:
    rounds = -(-num // COMPONENTS)
    noise = jax.random.normal(key, (rounds, *p["mean"].shape))
    z = (p["mean"] + jnp.exp(p["log_scale"]) * noise).reshape(-1, noise.shape[-1])
    q = fixed(p)
    white = (z[:, None, :] - q["mean"]) * jnp.exp(-q["log_scale"])
    each = jax.nn.log_softmax(q["logits"]) - 0.5 * jnp.sum(white * white, axis=2) - jnp.sum(q["log_scale"], axis=1)
    return z, logsumexp(each, axis=1), jnp.tile(jax.nn.softmax(p["logits"]), rounds) / rounds


# Affine couplings (RealNVP) between a standard normal and a full-rank affine map.


def _flow_start(key: jax.Array, dim: int) -> dict[str, jax.Array]:
    first_key, second_key = jax.random.split(key)
    return {
        **_located(dim),
        "coupling": jnp.zeros(dim * (dim - 1) // 2),
        "w1": jax.random.normal(first_key, (LAYERS, dim, WIDTH)) / jnp.sqrt(dim),
        "b1": jnp.zeros((LAYERS, WIDTH)),
        "w2": jax.random.normal(second_key, (LAYERS, WIDTH, WIDTH)) / jnp.sqrt(WIDTH),
        "b2": jnp.zeros((LAYERS, WIDTH)),
        "w3": jnp.zeros((LAYERS, WIDTH, 2 * dim)),
        "b3": jnp.zeros((LAYERS, 2 * dim)),
    }


def _shift_and_scale(layer: dict[str, jax.Array], kept: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden = jax.nn.silu((x * kept) @ layer["w1"] + layer["b1"])
    hidden = jax.nn.silu(hidden @ layer["w2"] + layer["b2"])
    shift, scale = jnp.split(hidden @ layer["w3"] + layer["b3"], 2, axis=-1)
    return shift * (1 - kept), BOUND * jnp.tanh(scale / BOUND) * (1 - kept)


def _flow_parts(p: dict[str, jax.Array]) -> Any:
    dim = p["mean"].shape[0]
    rows, columns = np.tril_indices(dim, -1)
    factor = jnp.exp(p["log_scale"])[:, None] * jnp.eye(dim).at[rows, columns].set(p["coupling"])
    pairs = np.arange(LAYERS) // 2 % (dim - 1).bit_length()
    kept = (np.arange(dim)[None, :] >> pairs[:, None]) & 1 == np.arange(LAYERS)[:, None] % 2
    return factor, ({k: p[k] for k in ("w1", "b1", "w2", "b2", "w3", "b3")}, jnp.asarray(kept, jnp.float32))


def _flow(p: dict[str, jax.Array], key: jax.Array, num: int) -> Any:
    factor, layers = _flow_parts(p)

    def forward(x: jax.Array, layer: Any) -> Any:
        shift, log_scale = _shift_and_scale(*layer, x)
        return x * jnp.exp(log_scale) + shift, None

    x = jax.lax.scan(forward, jax.random.normal(key, (num, factor.shape[0])), layers)[0]
    z = p["mean"] + x @ factor.T
    q = fixed(p)
    factor, layers = _flow_parts(q)

    def backward(carry: Any, layer: Any) -> Any:
        x, log_determinant = carry
        shift, log_scale = _shift_and_scale(*layer, x)
        return ((x - shift) * jnp.exp(-log_scale), log_determinant - jnp.sum(log_scale, axis=1)), None

    x = solve_triangular(factor, (z - q["mean"]).T, lower=True).T
    (noise, log_determinant), _ = jax.lax.scan(backward, (x, jnp.zeros(num)), layers, reverse=True)
    return z, -0.5 * jnp.sum(noise * noise, axis=1) + log_determinant - jnp.sum(q["log_scale"]), None


BY_HAND = {
    "mean_field": ByHand(_mean_field_start, _mean_field),
    "low_rank": ByHand(_low_rank_start, _low_rank),
    "block_diagonal": ByHand(_block_start, _block_diagonal),
    "student_t": ByHand(_student_t_start, _student_t),
    "mixture": ByHand(_mixture_start, _mixture),
    "flow": ByHand(_flow_start, _flow),
}


def scan_of(family: str, log_density: Callable[[Any, Any], Any], dim: int, num_draws: int, rate: float) -> Any:
    """Return jit(scan) of a family's steps of Adam: `run(key, data, num_steps)`."""
    made, optimizer = BY_HAND[family], optax.adam(rate)

    def loss(params: Any, key: jax.Array, data: Any) -> jax.Array:
        z, log_q, weights = made.draw(params, key, num_draws)
        terms = log_q - jax.vmap(log_density, (0, None))(z, data)
        return jnp.mean(terms) if weights is None else jnp.sum(weights * terms)

    def run(key: jax.Array, data: Any, num_steps: int) -> Any:
        start_key, key = jax.random.split(key)
        params = made.start(start_key, dim)

        def step(carry: Any, key: jax.Array) -> Any:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, key, data)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, num_steps))
        return params, losses

    return jax.jit(run, static_argnums=2)
