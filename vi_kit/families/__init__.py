"""Families of approximations q over unconstrained z, with unconstrained parameters."""

from vi_kit.families._full_rank import FullRank as FullRank
from vi_kit.families._full_rank import FullRankParams as FullRankParams
from vi_kit.families._low_rank import LowRank as LowRank
from vi_kit.families._low_rank import LowRankParams as LowRankParams
from vi_kit.families._mean_field import MeanField as MeanField
from vi_kit.families._mean_field import MeanFieldParams as MeanFieldParams
