"""The inputs on which divergences go wrong, each library's answer judged against float64."""

from __future__ import annotations

from typing import Any

import exact
import numpy as np
import peers

INF = np.inf
BETAS = (0.0, 1e-8, 0.1, 0.5, 0.9, 1 - 1e-8, 1.0)
_BETA_NAMES = {1 - 1e-8: "1 − 1e-8"}
P, Q = [1.0, 0.3, -0.8, 0.5], [0.2, 0.9, 0.1, -0.4]
_RNG = np.random.default_rng(0)
_WIDE = _RNG.normal(size=1_000) * 3


def judge(got: tuple[Any, ...], wanted: tuple[Any, ...], names: tuple[str, ...], tolerances: tuple[float, ...]) -> str:
    """Return "ok", or what is wrong: NaN, a number, or a relative error.

    A gradient is measured against its norm or a thousandth of the value, whichever is larger: where it vanishes
    exactly, nothing else is there to compare with.
    """
    faults = []
    for name, x, want, tolerance in zip(names, got, wanted, tolerances, strict=True):
        if x is None:
            continue
        x, want = np.asarray(x, np.float64), np.asarray(want, np.float64)
        if np.isnan(want).any():  # no right answer exists
            continue
        if np.isnan(x).any():
            faults.append(f"{name} NaN")
        elif not np.isfinite(want).all():
            if not np.array_equal(x, want):
                faults.append(f"{name} {float(x.ravel()[0]):.4g}")
        elif not np.isfinite(x).all():
            faults.append(f"{name} infinite")
        else:
            error, size = float(np.linalg.norm(x - want)), float(np.linalg.norm(want))
            if name != "value" and np.isfinite(wanted[0]).all():
                size = max(size, 1e-3 * float(np.abs(wanted[0]).max()))
            if error > tolerance * size:
                number = x.size == 1 and (error > 0.01 * size)  # one that a reader sees to be wrong
                faults.append(f"{name} {x.ravel()[0]:.4g}" if number else f"{name} {error / max(size, 1e-30):.0e} off")
    return ", ".join(faults) or ("ok" if got[1] is not None else "ok (no gradient)")


def _ask(peer: peers.Peer, *inputs: Any, **settings: Any) -> tuple[Any, ...] | str:
    try:
        return peer.evaluate(*inputs, **settings)
    except Exception as error:  # a refusal is an answer here
        return f"raises {type(error).__name__}"


def _cases() -> list[tuple[str, list[float], list[float], dict[str, Any]]]:
    half = np.asarray(peers.jnp.asarray(_WIDE, "bfloat16").astype("float32"))
    half_moved = np.asarray(peers.jnp.asarray(_WIDE + 0.1 * _RNG.normal(size=1_000), "bfloat16").astype("float32"))
    shift = np.float32(_WIDE)
    return [
        ("dense", P, Q, {}),
        ("the same −∞ in both", [*P[:3], -INF], [*Q[:3], -INF], {}),
        ("p = 0, q > 0", [*P[:3], -INF], Q, {}),
        ("one-hot p", [0.0, -INF, -INF, -INF], Q, {}),
        ("logit −1e4 in both", [*P[:3], -1e4], [*Q[:3], -1e4], {}),
        ("p > 0, q = 0", P, [*Q[:3], -INF], {}),
        ("q's logit −200", P, [*Q[:3], -200.0], {}),
        ("q = p + 1e-4 δ", P, [1.0001, 0.29993, -0.8, 0.50002], {}),
        ("no class exists", [-INF] * 4, [-INF] * 4, {"where": np.zeros(4, bool)}),
        ("q's logits + 1000", shift, np.float32(shift + 0.1 * _RNG.normal(size=1_000) + 1_000), {}),
        (
            "temperature 0.05, logits ±30",
            [30.0, -30.0, 29.5, 12.0],
            [-30.0, 30.0, 3.0, 29.0],
            {"temperature": 0.05, "tolerance": 1e-4},
        ),
        ("bfloat16, q = p + 0.1 δ", half, half_moved, {"dtype": "bfloat16"}),
        ("float16, logits ±60000", [6e4, -6e4, 0.0, 59968.0], [59968.0, -6e4, 0.0, 6e4], {"dtype": "float16"}),
    ]


def categorical(smoke: bool) -> list[dict[str, str]]:
    """Return one row a case, one cell a library; a smoke run leaves out what would have to be compiled again."""
    libraries, _ = peers.categorical()
    rows = []
    for name, p, q, settings in _cases():
        if smoke and (settings or len(p) > 4):
            continue
        p, q = np.asarray([p], np.float32), np.asarray([q], np.float32)
        temperature = settings.get("temperature", 1.0)
        if "where" in settings:
            wanted = (np.zeros(1), np.zeros_like(p), np.zeros_like(q))
        else:
            scale = np.float64(np.float32(temperature))
            value, *gradients = exact.categorical(p / scale, q / scale)
            wanted = (value, *(g / scale for g in gradients))
        # Gradients come back in half precision: one rounding of each entry is allowed there.
        gradient = {"bfloat16": 4e-3, "float16": 5e-4}.get(settings.get("dtype"), settings.pop("tolerance", 1e-5))
        names = ("value", "∇p", "∇q")
        row = {"case": name, "exact": f"{wanted[0][0]:.5g}"}
        for peer in libraries:
            got = _ask(peer, p, q, **settings)
            row[peer.name] = got if isinstance(got, str) else judge(got, wanted, names, (1e-5, gradient, gradient))
        rows.append(row)
    return rows


def jensen_shannon(smoke: bool) -> list[dict[str, str]]:
    """Return dense, nearly equal, disjoint and underflowing pairs."""
    near = np.asarray(P) + 1e-4 * np.asarray([1.0, -0.7, 0.1, 0.2])
    underflow = [[0.0, 1.0, -104.0, -1e30], [1.0, 0.0, -104.0, -1e30]]
    cases = [
        (f"dense, β = {_BETA_NAMES.get(beta, f'{beta:g}')}", P, Q, beta, normalize)
        for normalize in (False, True)
        for beta in BETAS
    ]
    cases += [
        ("q = p + 1e-4 δ, β = 0.5", P, near, 0.5, False),
        ("q = p + 1e-4 δ, β = 0.1", P, near, 0.1, False),
        ("both underflow, β = 0.5", *underflow, 0.5, False),
        ("the same −∞ in both, β = 0.5", [*P[:3], -INF], [*Q[:3], -INF], 0.5, False),
        ("disjoint, β = 0.5", [0.0, 1.0, -INF, -INF], [-INF, -INF, 0.0, 1.0], 0.5, False),
    ]
    rows = []
    for name, p, q, beta, normalize in cases:
        if smoke and (normalize or beta != 0.5):
            continue
        p, q = np.asarray([p], np.float32), np.asarray([q], np.float32)
        wanted = exact.jensen_shannon(p, q, beta, normalize)
        row = {"case": name + ", ÷ β(1−β)" * normalize, "exact": f"{wanted[0][0]:.5g}"}
        for peer in peers.jensen_shannon(beta, normalize):
            got = _ask(peer, p, q)
            row[peer.name] = got if isinstance(got, str) else judge(got, wanted, ("value", "∇p", "∇q"), (1e-5,) * 3)
        rows.append(row)
    return rows


def gaussian() -> list[dict[str, str]]:
    """Return log-variances from 1e-8 to those whose scale overflows or underflows; gradients to mean and ℓ."""
    cases = [(0.0, v) for v in (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 80.0, -100.0, -200.0)]
    cases += [(1e-4, 1e-4), (1e-4, 0.0), (2.0, -1.0)]
    libraries, _ = peers.gaussian()
    rows = []
    for mean, log_variance in cases:
        inputs = np.asarray([mean], np.float32), np.asarray([log_variance], np.float32)
        wanted = exact.gaussian(*inputs)
        row = {"case": f"mean {mean:g}, ℓ {log_variance:g}", "exact": f"{wanted[0][0]:.5g}"}
        for peer in libraries:
            got = _ask(peer, *inputs)
            row[peer.name] = (
                got if isinstance(got, str) else judge(got, wanted, ("value", "∇mean", "∇ℓ"), (1e-6, 1e-6, 1e-6))
            )
        rows.append(row)
    return rows


def table(rows: list[dict[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Return header and body for printing: a column a library, those with the same answers in one."""
    columns: dict[tuple[str, ...], list[str]] = {}
    for library in dict.fromkeys(name for row in rows for name in row if name not in ("case", "exact")):
        columns.setdefault(tuple(row.get(library, "–") for row in rows), []).append(library)
    body = [[row["case"], row["exact"], *cells] for row, *cells in zip(rows, *columns, strict=True)]
    right = (f"{sum(c.startswith('ok') for c in cells)} of {sum(c != '–' for c in cells)}" for cells in columns)
    return ["case", "exact", *("; ".join(names) for names in columns.values())], [*body, ["right", "", *right]]
