"""Algorithms: ways to fit, each an `init`, a `step` and a `params`."""

from vi_kit.algorithms._gradient_descent import GradientDescent as GradientDescent
from vi_kit.algorithms._gradient_descent import GradientDescentState as GradientDescentState
