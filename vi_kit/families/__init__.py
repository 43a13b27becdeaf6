"""Families of approximations q over unconstrained z, with unconstrained parameters."""

from vi_kit.families._block_diagonal import BlockDiagonal as BlockDiagonal
from vi_kit.families._block_diagonal import BlockDiagonalParams as BlockDiagonalParams
from vi_kit.families._block_diagonal import variable_blocks as variable_blocks
from vi_kit.families._couplings import AffineCoupling as AffineCoupling
from vi_kit.families._couplings import SplineCoupling as SplineCoupling
from vi_kit.families._flow import Flow as Flow
from vi_kit.families._flow import FlowParams as FlowParams
from vi_kit.families._full_rank import FullRank as FullRank
from vi_kit.families._full_rank import FullRankParams as FullRankParams
from vi_kit.families._low_rank import LowRank as LowRank
from vi_kit.families._low_rank import LowRankParams as LowRankParams
from vi_kit.families._mean_field import MeanField as MeanField
from vi_kit.families._mean_field import MeanFieldParams as MeanFieldParams
from vi_kit.families._mixture import Mixture as Mixture
from vi_kit.families._mixture import MixtureParams as MixtureParams
from vi_kit.families._student_t import StudentT as StudentT
from vi_kit.families._student_t import StudentTParams as StudentTParams
