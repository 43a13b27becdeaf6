"""KL on arrays, to import into models. Needs only jax; (p, q) means KL(p‖q), in nats, without reduction."""

from vi_kit._estimate import Estimate as Estimate
from vi_kit.kl._gaussian import multivariate_normal as multivariate_normal
from vi_kit.kl._gaussian import normal as normal
