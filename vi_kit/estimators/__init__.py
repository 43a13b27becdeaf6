"""Gradient estimators: how the mean of something over q is differentiated in the parameters of q."""

from vi_kit.estimators._closed_form_entropy import closed_form_entropy as closed_form_entropy
from vi_kit.estimators._pathwise import pathwise as pathwise
from vi_kit.estimators._sticking_the_landing import sticking_the_landing as sticking_the_landing
