"""KL on arrays, to import into models. Needs only jax; (p, q) means KL(p‖q), in nats, without reduction."""

from vi_kit._estimate import Estimate as Estimate
from vi_kit.kl._categorical import bernoulli as bernoulli
from vi_kit.kl._categorical import categorical as categorical
from vi_kit.kl._categorical import categorical_from_log_probs as categorical_from_log_probs
from vi_kit.kl._categorical import categorical_from_probs as categorical_from_probs
from vi_kit.kl._entropy import cross_entropy as cross_entropy
from vi_kit.kl._entropy import entropy as entropy
from vi_kit.kl._entropy import to_uniform as to_uniform
from vi_kit.kl._gaussian import multivariate_normal as multivariate_normal
from vi_kit.kl._gaussian import normal as normal
from vi_kit.kl._mixtures import jensen_shannon as jensen_shannon
from vi_kit.kl._mixtures import skew as skew
from vi_kit.kl._probabilities import check_probabilities as check_probabilities
from vi_kit.kl._renyi import alpha_divergence as alpha_divergence
from vi_kit.kl._renyi import renyi as renyi
from vi_kit.kl._symmetric import jeffreys as jeffreys
from vi_kit.kl._symmetric import total_variation as total_variation
