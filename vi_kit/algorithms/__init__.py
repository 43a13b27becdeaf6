"""Algorithms: ways to fit, each an `init`, a `step` and a `params`."""

from vi_kit.algorithms._batch_and_match import BatchAndMatch as BatchAndMatch
from vi_kit.algorithms._batch_and_match import BatchAndMatchState as BatchAndMatchState
from vi_kit.algorithms._fixed_draws import FixedDraws as FixedDraws
from vi_kit.algorithms._fixed_draws import FixedDrawsState as FixedDrawsState
from vi_kit.algorithms._gaussian_score_matching import GaussianScoreMatching as GaussianScoreMatching
from vi_kit.algorithms._gaussian_score_matching import GaussianScoreMatchingState as GaussianScoreMatchingState
from vi_kit.algorithms._gradient_descent import GradientDescent as GradientDescent
from vi_kit.algorithms._gradient_descent import GradientDescentState as GradientDescentState
from vi_kit.algorithms._growing_draws import GrowingDraws as GrowingDraws
from vi_kit.algorithms._growing_draws import GrowingDrawsState as GrowingDrawsState
from vi_kit.algorithms._hamiltonian import HamiltonianMonteCarlo as HamiltonianMonteCarlo
from vi_kit.algorithms._iterate_averaging import IterateAveraging as IterateAveraging
from vi_kit.algorithms._iterate_averaging import IterateAveragingState as IterateAveragingState
from vi_kit.algorithms._laplace import Laplace as Laplace
from vi_kit.algorithms._laplace import LaplaceState as LaplaceState
from vi_kit.algorithms._linear_response import linear_response_covariance as linear_response_covariance
from vi_kit.algorithms._moment_matching import MomentMatching as MomentMatching
from vi_kit.algorithms._moment_matching import MomentMatchingState as MomentMatchingState
from vi_kit.algorithms._multi_path_pathfinder import MultiPathPathfinder as MultiPathPathfinder
from vi_kit.algorithms._multi_path_pathfinder import MultiPathPathfinderState as MultiPathPathfinderState
from vi_kit.algorithms._natural_gradient import NaturalGradient as NaturalGradient
from vi_kit.algorithms._natural_gradient import NaturalGradientState as NaturalGradientState
from vi_kit.algorithms._pathfinder import Pathfinder as Pathfinder
from vi_kit.algorithms._pathfinder import PathfinderState as PathfinderState
from vi_kit.algorithms._score_climbing import ScoreClimbing as ScoreClimbing
from vi_kit.algorithms._score_climbing import ScoreClimbingState as ScoreClimbingState
