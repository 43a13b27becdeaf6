"""KL on arrays, to import into models: needs only jax. (p, q) means KL(p‖q), in nats, one value a row.

classes: categorical, categorical_from_log_probs, categorical_from_probs, bernoulli, jensen_shannon, skew, jeffreys,
    renyi, alpha_divergence, total_variation, to_uniform, top_k, entropy, cross_entropy, check_probabilities
losses: distillation_loss, forward, reverse, reduce; kl.losses has optax's names and argument order
output layers: fused_linear
latents: normal, multivariate_normal, multivariate_normal_low_rank, free_bits, balance, capacity, active_units,
    kl.schedules, importance_weighted_bound, diffusion_loss, discretized_normal_log_prob, nats_to_bits_per_dim
draws: estimate, sequence, from_samples, donsker_varadhan, nguyen_wainwright_jordan, classifier
policies: AdaptiveCoefficient, regularized_policy, regularized_value, temperature_dual, fisher_vector_product,
    trust_region_step
"""

from vi_kit._estimate import Estimate as Estimate
from vi_kit.kl import losses as losses
from vi_kit.kl import schedules as schedules
from vi_kit.kl._adaptive import AdaptiveCoefficient as AdaptiveCoefficient
from vi_kit.kl._adaptive import CoefficientState as CoefficientState
from vi_kit.kl._adaptive import LagrangianRule as LagrangianRule
from vi_kit.kl._adaptive import ProportionalRule as ProportionalRule
from vi_kit.kl._adaptive import ThresholdRule as ThresholdRule
from vi_kit.kl._categorical import bernoulli as bernoulli
from vi_kit.kl._categorical import categorical as categorical
from vi_kit.kl._categorical import categorical_from_log_probs as categorical_from_log_probs
from vi_kit.kl._categorical import categorical_from_probs as categorical_from_probs
from vi_kit.kl._diffusion import continuous_diffusion_loss as continuous_diffusion_loss
from vi_kit.kl._diffusion import diffusion_loss as diffusion_loss
from vi_kit.kl._diffusion import diffusion_posterior as diffusion_posterior
from vi_kit.kl._diffusion import diffusion_prior as diffusion_prior
from vi_kit.kl._diffusion import low_discrepancy_times as low_discrepancy_times
from vi_kit.kl._discretized_normal import discretized_normal_log_prob as discretized_normal_log_prob
from vi_kit.kl._distillation import distillation_loss as distillation_loss
from vi_kit.kl._distillation import forward as forward
from vi_kit.kl._distillation import reverse as reverse
from vi_kit.kl._dual_bounds import classifier as classifier
from vi_kit.kl._dual_bounds import donsker_varadhan as donsker_varadhan
from vi_kit.kl._dual_bounds import nguyen_wainwright_jordan as nguyen_wainwright_jordan
from vi_kit.kl._entropy import cross_entropy as cross_entropy
from vi_kit.kl._entropy import entropy as entropy
from vi_kit.kl._entropy import to_uniform as to_uniform
from vi_kit.kl._from_samples import from_samples as from_samples
from vi_kit.kl._fused_linear import fused_linear as fused_linear
from vi_kit.kl._gaussian import multivariate_normal as multivariate_normal
from vi_kit.kl._gaussian import normal as normal
from vi_kit.kl._importance_weighted import doubly_reparameterized as doubly_reparameterized
from vi_kit.kl._importance_weighted import importance_weighted_bound as importance_weighted_bound
from vi_kit.kl._importance_weighted import reparameterized as reparameterized
from vi_kit.kl._latent import active_units as active_units
from vi_kit.kl._latent import balance as balance
from vi_kit.kl._latent import batch_then_clip as batch_then_clip
from vi_kit.kl._latent import capacity as capacity
from vi_kit.kl._latent import clip_then_batch as clip_then_batch
from vi_kit.kl._latent import free_bits as free_bits
from vi_kit.kl._latent import nats_to_bits_per_dim as nats_to_bits_per_dim
from vi_kit.kl._low_rank import multivariate_normal_low_rank as multivariate_normal_low_rank
from vi_kit.kl._mixtures import jensen_shannon as jensen_shannon
from vi_kit.kl._mixtures import skew as skew
from vi_kit.kl._policy import regularized_policy as regularized_policy
from vi_kit.kl._policy import regularized_value as regularized_value
from vi_kit.kl._policy import temperature_dual as temperature_dual
from vi_kit.kl._probabilities import check_probabilities as check_probabilities
from vi_kit.kl._reduce import reduce as reduce
from vi_kit.kl._renyi import alpha_divergence as alpha_divergence
from vi_kit.kl._renyi import renyi as renyi
from vi_kit.kl._sampled import control_variate as control_variate
from vi_kit.kl._sampled import estimate as estimate
from vi_kit.kl._sampled import k1 as k1
from vi_kit.kl._sampled import k2 as k2
from vi_kit.kl._sampled import k3 as k3
from vi_kit.kl._sampled import none as none
from vi_kit.kl._sampled import pathwise as pathwise
from vi_kit.kl._sampled import score as score
from vi_kit.kl._sequences import sequence as sequence
from vi_kit.kl._symmetric import jeffreys as jeffreys
from vi_kit.kl._symmetric import total_variation as total_variation
from vi_kit.kl._top_k import bucket as bucket
from vi_kit.kl._top_k import renormalize as renormalize
from vi_kit.kl._top_k import top_k as top_k
from vi_kit.kl._trust_region import TrustRegionStep as TrustRegionStep
from vi_kit.kl._trust_region import fisher_vector_product as fisher_vector_product
from vi_kit.kl._trust_region import trust_region_step as trust_region_step

__all__ = [
    "AdaptiveCoefficient",
    "CoefficientState",
    "Estimate",
    "LagrangianRule",
    "ProportionalRule",
    "ThresholdRule",
    "TrustRegionStep",
    "active_units",
    "alpha_divergence",
    "balance",
    "batch_then_clip",
    "bernoulli",
    "bucket",
    "capacity",
    "categorical",
    "categorical_from_log_probs",
    "categorical_from_probs",
    "check_probabilities",
    "classifier",
    "clip_then_batch",
    "continuous_diffusion_loss",
    "control_variate",
    "cross_entropy",
    "diffusion_loss",
    "diffusion_posterior",
    "diffusion_prior",
    "discretized_normal_log_prob",
    "distillation_loss",
    "donsker_varadhan",
    "doubly_reparameterized",
    "entropy",
    "estimate",
    "fisher_vector_product",
    "forward",
    "free_bits",
    "from_samples",
    "fused_linear",
    "importance_weighted_bound",
    "jeffreys",
    "jensen_shannon",
    "k1",
    "k2",
    "k3",
    "losses",
    "low_discrepancy_times",
    "multivariate_normal",
    "multivariate_normal_low_rank",
    "nats_to_bits_per_dim",
    "nguyen_wainwright_jordan",
    "none",
    "normal",
    "pathwise",
    "reduce",
    "regularized_policy",
    "regularized_value",
    "renormalize",
    "renyi",
    "reparameterized",
    "reverse",
    "schedules",
    "score",
    "sequence",
    "skew",
    "temperature_dual",
    "to_uniform",
    "top_k",
    "total_variation",
    "trust_region_step",
]
