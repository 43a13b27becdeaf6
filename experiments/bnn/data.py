"""Regression sets that ship with scikit-learn and statsmodels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import workbench


class Set(NamedTuple):
    """Rows of a set that have been standardized with its training rows, and what one unit of y was."""

    parts: workbench.Split
    unit: float


def diabetes() -> tuple[Any, Any]:
    """442 patients: ten measurements, the progression of the disease a year later."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    return bunch.data, bunch.target


def star98() -> tuple[Any, Any]:
    """303 Californian school districts: twelve numbers about each, the share of pupils above the national median."""
    from statsmodels.datasets import star98 as source

    frame = source.load_pandas().data
    names = "LOWINC PERASIAN PERBLACK PERHISP PERMINTE AVYRSEXP AVSALK PERSPENK PTRATIO PCTAF PCTCHRT PCTYRRND"
    return frame[names.split()].to_numpy(), (frame["NABOVE"] / (frame["NABOVE"] + frame["NBELOW"])).to_numpy()


def engel() -> tuple[Any, Any]:
    """235 Belgian households of 1857: income, expenditure for food; its spread grows with income."""
    from statsmodels.datasets import engel as source

    frame = source.load_pandas().data
    return frame[["income"]].to_numpy(), frame["foodexp"].to_numpy()


SETS = {"diabetes": diabetes, "star98": star98, "engel": engel}


def load(name: str, *, seed: int) -> Set:
    """Deal a set's rows to three parts; x and y are in standard deviations of the training rows."""
    if name not in SETS:
        workbench.stop(f"no data set is called {name}: there are {', '.join(SETS)}")
    x, y = SETS[name]()
    parts = workbench.split({"x": np.asarray(x, np.float64), "y": np.asarray(y, np.float64)}, seed=seed)
    center = {key: leaf.mean(axis=0) for key, leaf in parts.train.items()}
    scale = {key: leaf.std(axis=0) for key, leaf in parts.train.items()}
    standard = [
        {key: ((leaf - center[key]) / scale[key]).astype(np.float32) for key, leaf in part.items()} for part in parts
    ]
    return Set(workbench.Split(*standard), float(scale["y"]))
