"""Log densities of the posteriordb models that vi_kit carries, by posterior name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vi_kit.targets._models import _hierarchical, _others, _regressions, _time_series
from vi_kit.targets._models._model import Model, RawData

MODELS: Mapping[str, Callable[[RawData], Model]] = {
    "arK-arK": _time_series.ark,
    "earnings-logearn_interaction": _regressions.earnings_logearn_interaction,
    "eight_schools-eight_schools_centered": _hierarchical.eight_schools_centered,
    "eight_schools-eight_schools_noncentered": _hierarchical.eight_schools_noncentered,
    "garch-garch11": _time_series.garch11,
    "gp_pois_regr-gp_regr": _others.gp_regr,
    "hmm_example-hmm_example": _time_series.hmm_example,
    "kidiq-kidscore_interaction": _regressions.kidiq_kidscore_interaction,
    "kilpisjarvi_mod-kilpisjarvi": _regressions.kilpisjarvi_mod_kilpisjarvi,
    "low_dim_gauss_mix-low_dim_gauss_mix": _others.low_dim_gauss_mix,
    "mesquite-logmesquite": _regressions.mesquite_logmesquite,
    "nes1980-nes": _regressions.nes1980_nes,
    "sblrc-blr": _regressions.sblrc_blr,
}

__all__ = ["MODELS", "Model", "RawData"]
