"""Parameters for every family: ordinary ones, and concentrated or extreme ones whose neighbors are told apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from divergence_densities import DENSITIES

Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Parameters of one family, all of the same names and shapes.

    Attributes:
        ordinary: compared with each other and with those of other families.
        extreme: compared with themselves and their neighbors.
        edge: where a limit is taken; compared with `ordinary`.
    """

    ordinary: tuple[Values, ...]
    extreme: tuple[Values, ...] = ()
    edge: tuple[Values, ...] = ()


def _table(names: str, ordinary: list[tuple], extreme: list[tuple] = (), edge: list[tuple] = ()) -> Examples:
    def rows(values: Any) -> tuple[Values, ...]:
        return tuple(dict(zip(names.split(), map(_single, row), strict=True)) for row in values)

    return Examples(rows(ordinary), rows(extreme), rows(edge))


def _single(value: Any) -> Any:
    """Round to what float32 holds, so that everyone is given the same numbers."""
    return np.float32(value).astype(np.float64)


_LOC_SCALE = _table("loc scale", [(0.3, 1.2), (-0.8, 0.5)], [(100.0, 1e-3), (2.0, 300.0)])
_COUNT_OF_TWO = [(2.5, 0.7), (0.8, 1.9)]
_SHARP = [(1e5, 3.0), (0.05, 2.0), (1e3, 1e-3)]
_FACTORS = np.array([[[1.1, 0, 0], [0.4, 0.8, 0], [-0.3, 0.2, 1.5]], [[0.7, 0, 0], [-0.2, 1.3, 0], [0.5, 0.1, 0.9]]])
_SHARP_FACTOR = np.array([[3e-3, 0, 0], [2e-3, 1e-3, 0], [1e-2, -2e-2, 4e-2]])
_P3 = [(0.25, 0.5, 0.25), (0.125, 0.625, 0.25)]

EXAMPLES: dict[str, tuple[Examples, ...]] = {
    **dict.fromkeys(("Normal", "Laplace", "Logistic", "Gumbel", "Cauchy", "Moyal"), (_LOC_SCALE,)),
    "StudentT": (_table("df loc scale", [(4.5, 0.3, 1.2), (7.0, -0.8, 0.5)], [(30.0, 100.0, 1e-3)]),),
    "GeneralizedNormal": (
        _table("loc scale power", [(0.3, 1.2, 1.5), (0.3, 0.5, 3.0)], [(100.0, 1e-3, 2.0), (2.0, 300.0, 1.0)]),
    ),
    "GeneralizedExtremeValue": (
        _table("loc scale concentration", [(0.3, 1.2, 0.2), (0.3, 0.5, 0.2)], [(100.0, 1e-2, -0.1)]),
    ),
    "ExpGamma": (_table("concentration rate", _COUNT_OF_TWO, _SHARP),),
    "ExpInverseGamma": (_table("concentration scale", _COUNT_OF_TWO, _SHARP),),
    "Gamma": (_table("concentration rate", _COUNT_OF_TWO, _SHARP),),
    "InverseGamma": (_table("concentration scale", _COUNT_OF_TWO, _SHARP),),
    "GeneralizedGamma": (
        _table(
            "concentration scale power rate",
            [(2.5, 1.5, 1.3, 0.7), (1.8, 0.6, 0.9, 1.9)],
            [(1e4, 1.0, 2.0, 3.0), (0.5, 2.0, -1.0, 1.0)],
        ),
    ),
    "Exponential": (_table("rate", [(0.7,), (1.9,)], [(1e-3,), (1e4,)]),),
    "Chi2": (_table("df", [(2.5,), (5.0,)], [(1e5,), (0.1,)]),),
    "Chi": (_table("df", [(2.5,), (5.0,)], [(1e5,), (0.1,)]),),
    **{
        name: (_table("scale", [(0.7,), (1.9,)], [(1e-3,), (1e4,)]),)
        for name in ("HalfNormal", "HalfCauchy", "Rayleigh", "Maxwell")
    },
    "Weibull": (_table("concentration scale", [(2.5, 0.7), (0.8, 1.9)], [(1e3, 2.0), (0.1, 5.0)]),),
    "Frechet": (_table("concentration scale", [(2.5, 0.7), (0.8, 1.9)], [(1e3, 2.0), (0.1, 5.0)]),),
    "InverseGaussian": (_table("loc concentration", [(1.5, 0.7), (0.8, 1.9)], [(2.0, 1e5), (1e2, 1.0)]),),
    "LogNormal": (_LOC_SCALE_LOG := _table("loc scale", [(0.3, 1.2), (-0.8, 0.5)], [(5.0, 1e-3), (2.0, 8.0)]),),
    "LogLogistic": (_LOC_SCALE_LOG,),
    "LogitNormal": (_table("loc scale", [(0.3, 1.2), (-0.8, 0.5)], [(2.0, 1e-3), (1.0, 8.0)]),),
    "Levy": (_table("loc scale", [(0.3, 1.2), (0.3, 0.5)], [(100.0, 1e-3)]),),
    "Pareto": (_table("concentration scale", [(2.5, 1.2), (3.5, 0.5)], [(1e4, 2.0), (2.2, 1e3)]),),
    "Beta": (_table("concentration1 concentration0", _COUNT_OF_TWO, [(1e4, 1e4), (1e5, 3.0), (0.2, 0.1)]),),
    "Kumaraswamy": (_table("concentration1 concentration0", _COUNT_OF_TWO, [(50.0, 30.0), (0.2, 0.3)]),),
    "ContinuousBernoulli": (
        _table("probs", [(0.2,), (0.7,)], [(0.5,), (0.499,), (0.999,), (1e-3,)]),
        _table("logits", [(-1.4,), (0.9,)], [(0.0,), (1e-3,), (12.0,), (-40.0,)]),
    ),
    "Uniform": (_table("low high", [(0.2, 0.9), (0.1, 2.5)], [(100.0, 101.0)]),),
    "TruncatedNormal": (
        _table("loc scale low high", [(0.3, 1.2, -1.0, 0.9), (-0.8, 0.5, -1.0, 0.9)], [(2.0, 0.5, 0.0, 3.0)]),
    ),
    "TruncatedExponential": (_table("rate high", [(0.7, 2.0), (1.9, 3.0)], [(1e-2, 1.0), (30.0, 1.0)]),),
    "VonMises": (
        _table("loc concentration", [(0.3, 1.2), (-2.8, 4.0)], [(1.0, 1e5), (3.0, 1e-3)], [(0.3, 0.0)]),
    ),
    "Bernoulli": (
        _table("probs", [(0.2,), (0.7,)], [(1e-6,), (0.999,)], [(0.0,), (1.0,)]),
        _table("logits", [(-1.4,), (0.9,)], [(-30.0,), (8.0,)], [(-np.inf,), (np.inf,)]),
    ),
    "Binomial": (
        _table("total_count probs", [(7, 0.2), (7, 0.7)], [(1000, 1e-3), (30, 0.99)], [(7, 0.0), (7, 1.0)]),
        _table("total_count logits", [(7, -1.4), (7, 0.9)], [(1000, -6.0)], [(7, -np.inf)]),
    ),
    "Geometric": (
        _table("probs", [(0.2,), (0.7,)], [(1e-3,), (0.999,)], [(1.0,)]),
        _table("logits", [(-1.4,), (0.9,)], [(-7.0,), (9.0,)]),
    ),
    "NegativeBinomial": (
        _table("total_count probs", [(3.5, 0.2), (3.5, 0.7)], [(50.0, 0.99), (0.5, 1e-3)], [(3.5, 0.0)]),
        _table("total_count logits", [(3.5, -1.4), (3.5, 0.9)], [(50.0, 4.0)]),
    ),
    "Poisson": (_table("rate", [(0.7,), (4.2,)], [(1e6,), (1e-4,)], [(0.0,)]),),
    "DiscreteUniform": (_table("low high", [(1, 4), (0, 9)], [(100, 1000)]),),
    "Categorical": (
        _table("probs", [(_P3[0],), (_P3[1],)]),
        _table("logits", [((0.0, 1.0, -1.0),), ((2.0, 0.5, 0.0),)], [((0.0, -9.0, 20.0),)]),
    ),
    "Multinomial": (
        _table("total_count probs", [(5, _P3[0]), (5, _P3[1])]),
        _table("total_count logits", [(5, (0.0, 1.0, -1.0)), (5, (2.0, 0.5, 0.0))], [(40, (0.0, -9.0, 20.0))]),
    ),
    "MultivariateNormal": (
        _table(
            "loc scale_tril",
            [((0.3, -1.0, 0.2), _FACTORS[0]), ((0.0, 0.5, 1.2), _FACTORS[1])],
            [((100.0, 3.0, 0.1), _SHARP_FACTOR)],
        ),
    ),
    "MultivariateNormalLowRank": (
        _table(
            "loc factor scale_diag",
            [
                ((0.3, -1.0, 0.2), ((1.1,), (0.4,), (-0.3,)), (0.5, 1.2, 0.7)),
                ((0.0, 0.5, 1.2), ((-0.7,), (0.9,), (0.2,)), (0.9, 0.4, 1.3)),
            ],
            [((100.0, 3.0, 0.1), ((3.0,), (0.2,), (-1.0,)), (0.3, 0.5, 0.4))],
        ),
    ),
    "Diagonal": (
        _table(
            "loc scale",
            [((0.3, -1.0, 0.2), (0.5, 1.2, 0.7)), ((0.0, 0.5, 1.2), (0.9, 0.4, 1.3))],
            [((100.0, 3.0, 0.1), (1e-3, 5.0, 300.0))],
        ),
    ),
    "Dirichlet": (
        _table("concentration", [((0.7, 2.0, 1.3),), ((3.0, 0.5, 1.1),)], [((200.0, 3e4, 1.0),), ((0.05, 0.1, 0.2),)]),
    ),
    "MatrixNormal": (
        _table(
            "loc row_scale_tril column_scale_tril",
            [
                (((0.3, -1.0), (0.0, 0.5)), _FACTORS[0][:2, :2], _FACTORS[1][:2, :2]),
                (((0.0, 0.7), (0.4, -0.5)), _FACTORS[1][:2, :2], _FACTORS[0][:2, :2]),
            ],
            [(((100.0, -1.0), (0.0, 5.0)), _SHARP_FACTOR[:2, :2], _FACTORS[0][:2, :2])],
        ),
    ),
    **{
        name: (_table("scale_tril df", [(_FACTORS[0], 4.5), (_FACTORS[1], 7.0)], [(_SHARP_FACTOR, 1e4)]),)
        for name in ("Wishart", "InverseWishart")
    },
    **{
        name: (
            _table(
                f"loc count concentration {scale}",
                [(0.3, 2.0, 2.5, 0.7), (-0.8, 0.5, 0.8, 1.9)],
                [(10.0, 1e4, 1e4, 3.0), (0.1, 1e-2, 0.1, 2.0)],
            ),
        )
        for name, scale in (("NormalGamma", "rate"), ("NormalInverseGamma", "scale"))
    },
    **{
        name: (
            _table(
                "loc count scale_tril df",
                [((0.3, -1.0, 0.2), 2.0, _FACTORS[0], 4.5), ((0.0, 0.5, 1.2), 0.5, _FACTORS[1], 7.0)],
                [((3.0, 0.5, 1.2), 1e3, _FACTORS[1], 1e4)],
            ),
        )
        for name in ("NormalWishart", "NormalInverseWishart")
    },
    "VonMisesFisher": (
        _table(
            "mean_direction concentration",
            [((1.0, 0.0, 0.0), 1.2), ((0.0, 0.6, 0.8), 4.0)],
            [((0.0, 1.0, 0.0), 1e4), ((0.0, 0.0, 1.0), 1e-3)],
        ),
    ),
    "PowerSpherical": (
        _table(
            "mean_direction concentration",
            [((1.0, 0.0, 0.0), 1.2), ((0.0, 0.6, 0.8), 4.0)],
            [((0.0, 1.0, 0.0), 1e4), ((0.0, 0.0, 1.0), 1e-3)],
        ),
    ),
    "SphericalUniform": (Examples(({}, {})),),
}  # fmt: skip
EXAMPLES["OneHotCategorical"] = EXAMPLES["Categorical"]

_SIGNS = {"low": -1.0, "high": 1.0, "loc": 0.7, "logits": 1.0}


def scale_of(family: str, values: Values, name: str) -> Any:
    """Return how far a parameter has to move to change the distribution."""
    value = np.abs(np.asarray(values[name], np.float64))
    if name in {"loc", "low", "high"} and family in DENSITIES:
        return DENSITIES[family].where(values)[1]
    if name == "loc":
        spread = values.get("scale_diag", values.get("scale", 1.0) if "scale_tril" not in values else 1.0)
        if "scale_tril" in values:
            spread = np.abs(np.diagonal(values["scale_tril"]))
        return np.ones_like(value) * (spread if np.ndim(spread) <= value.ndim else 1.0)
    if name == "probs" and value.ndim == 0:
        return np.minimum(value, 1 - value)
    if name == "logits":
        return np.ones_like(value)
    if name == "mean_direction":
        return np.ones_like(value) / max(1.0, float(values["concentration"])) ** 0.5
    return value


def neighbor(family: str, values: Values, change: float) -> Values:
    """Return parameters a relative change away, each in another direction, rounded to float32."""
    moved = {}
    for i, (name, value) in enumerate(values.items()):
        value = np.asarray(value, np.float64)
        step = change * scale_of(family, values, name) * _SIGNS.get(name, (1.0, -0.6, 0.8)[i % 3])
        if name == "total_count":
            moved[name] = value
        elif family == "GeneralizedExtremeValue" and name == "scale":
            moved[name] = _single(value + abs(step))  # the support grows
        elif family == "DiscreteUniform":
            moved[name] = value + _SIGNS[name] * max(1, round(abs(step)))
        elif name == "probs" and value.ndim:
            step = max(np.round(change * value[0] * 2**22), 1) / 2**22  # exact: the sum stays 1
            moved[name] = value + np.array([step, -step, 0.0])
        elif name == "mean_direction":
            towards = np.roll(value, 1) - np.roll(value, 1) @ value * value
            found = value + change * float(np.max(scale_of(family, values, name))) * towards
            moved[name] = _single(found / np.linalg.norm(found))
        else:
            weights = np.resize([1.0, -0.7, 0.4, 0.9, -0.5], value.shape) if value.ndim else 1.0
            moved[name] = _single(value + step * weights)
    return moved
