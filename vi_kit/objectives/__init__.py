"""Objectives: losses over a family's parameters, in both directions of KL. All are minimized."""

from vi_kit.objectives._forward_kl import ForwardKL as ForwardKL
from vi_kit.objectives._forward_kl import exact as exact
from vi_kit.objectives._forward_kl import given as given
from vi_kit.objectives._forward_kl import self_normalized as self_normalized
from vi_kit.objectives._reverse_kl import ReverseKL as ReverseKL
from vi_kit.objectives._reverse_kl import closed_form_kl as closed_form_kl
from vi_kit.objectives._reverse_kl import monte_carlo_kl as monte_carlo_kl
