"""Objectives: losses over a family's parameters, in both directions of KL and beyond. All are minimized."""

from vi_kit.objectives._annealed import annealed as annealed
from vi_kit.objectives._chi_square import ChiSquare as ChiSquare
from vi_kit.objectives._fisher import Fisher as Fisher
from vi_kit.objectives._forward_kl import ForwardKL as ForwardKL
from vi_kit.objectives._forward_kl import exact as exact
from vi_kit.objectives._forward_kl import given as given
from vi_kit.objectives._forward_kl import self_normalized as self_normalized
from vi_kit.objectives._importance_weighted import ImportanceWeighted as ImportanceWeighted
from vi_kit.objectives._renyi import Renyi as Renyi
from vi_kit.objectives._reverse_kl import ReverseKL as ReverseKL
from vi_kit.objectives._reverse_kl import closed_form_kl as closed_form_kl
from vi_kit.objectives._reverse_kl import monte_carlo_kl as monte_carlo_kl
from vi_kit.objectives._symmetrized import Symmetrized as Symmetrized
from vi_kit.objectives._tail_adaptive import TailAdaptive as TailAdaptive
from vi_kit.objectives._tamed_weights import pareto_smoothed as pareto_smoothed
from vi_kit.objectives._tamed_weights import tempered as tempered
