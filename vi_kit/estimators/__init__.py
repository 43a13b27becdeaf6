"""Gradient estimators: how the mean of something over q is differentiated in the parameters of q."""

from vi_kit.estimators._base import antithetic as antithetic
from vi_kit.estimators._base import quasi_monte_carlo as quasi_monte_carlo
from vi_kit.estimators._choose import choose as choose
from vi_kit.estimators._choose import evaluations as evaluations
from vi_kit.estimators._choose import valid as valid
from vi_kit.estimators._closed_form_entropy import closed_form_entropy as closed_form_entropy
from vi_kit.estimators._doubly_reparameterized import doubly_reparameterized as doubly_reparameterized
from vi_kit.estimators._forms import Form as Form
from vi_kit.estimators._pathwise import pathwise as pathwise
from vi_kit.estimators._score_function import score_function as score_function
from vi_kit.estimators._sticking_the_landing import sticking_the_landing as sticking_the_landing
from vi_kit.estimators._stratified import stratified as stratified
