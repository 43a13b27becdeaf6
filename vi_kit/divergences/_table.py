"""The table of closed forms: it drives dispatch, `table()` and the contract tests. A new pair is a row."""

from __future__ import annotations

from vi_kit.divergences import _bounded as bounded
from vi_kit.divergences import _bounded_beta as bounded_beta
from vi_kit.divergences import _directional as directional
from vi_kit.divergences import _dirichlet as dirichlet
from vi_kit.divergences import _discrete as discrete
from vi_kit.divergences import _gamma as gamma
from vi_kit.divergences import _gaussian as gaussian
from vi_kit.divergences import _images as images
from vi_kit.divergences import _kumaraswamy as kumaraswamy
from vi_kit.divergences import _location_scale as location_scale
from vi_kit.divergences import _simplify as simplify
from vi_kit.divergences import _trials as trials
from vi_kit.divergences import _truncated as truncated
from vi_kit.divergences import _wishart as wishart
from vi_kit.divergences._rules import Rule, Widening
from vi_kit.divergences.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    Chi,
    Chi2,
    ContinuousBernoulli,
    Dirichlet,
    DiscreteUniform,
    ExpGamma,
    ExpInverseGamma,
    Exponential,
    Frechet,
    Gamma,
    GeneralizedExtremeValue,
    GeneralizedGamma,
    GeneralizedNormal,
    Geometric,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Independent,
    InverseGamma,
    InverseGaussian,
    InverseWishart,
    Kumaraswamy,
    Laplace,
    Levy,
    Logistic,
    LogitNormal,
    LogLogistic,
    LogNormal,
    MatrixNormal,
    Maxwell,
    Moyal,
    Multinomial,
    MultivariateNormal,
    MultivariateNormalLowRank,
    NegativeBinomial,
    Normal,
    NormalGamma,
    NormalInverseGamma,
    NormalInverseWishart,
    NormalWishart,
    OneHotCategorical,
    Pareto,
    Poisson,
    PowerSpherical,
    Rayleigh,
    Sample,
    SphericalUniform,
    StudentT,
    TruncatedExponential,
    TruncatedNormal,
    Uniform,
    VonMises,
    VonMisesFisher,
    Weibull,
    Wishart,
)

RULES: tuple[Rule, ...] = (
    # Gaussians
    Rule(Normal, Normal, gaussian.normal_normal, "½[e^{2a} − 1 − 2a + (Δm/s_q)²], a = log(s_p/s_q)", checked=True),
    Rule(
        MultivariateNormal,
        MultivariateNormal,
        gaussian.multivariate_normal,
        "½[‖M‖² − d − 2 log det M + ‖L_q⁻¹Δm‖²]",
        checked=True,
    ),
    Rule(MultivariateNormalLowRank, MultivariateNormalLowRank, gaussian.low_rank, "as dense, by Woodbury's identity"),
    Rule(MatrixNormal, MatrixNormal, gaussian.matrix_normal, "as dense with Σ = U ⊗ V, from the factors"),
    # Trials that succeed or fail, counts, classes
    Rule(Bernoulli, Bernoulli, trials.bernoulli, "p log(p/q) + (1 − p) log((1 − p)/(1 − q)), as two remainders"),
    Rule(Binomial, Binomial, trials.binomial, "n × Bernoulli where n_p = n_q, +∞ where n_p > n_q"),
    Rule(Geometric, Geometric, trials.geometric, "Bernoulli / p"),
    Rule(
        NegativeBinomial,
        NegativeBinomial,
        trials.negative_binomial,
        "n × Bernoulli / (1 − p)",
        shared=("total_count",),
    ),
    Rule(Poisson, Poisson, discrete.poisson, "λ_p log(λ_p/λ_q) − λ_p + λ_q"),
    Rule(Bernoulli, Poisson, discrete.bernoulli_poisson, "Poisson(p)‖Poisson(λ) + p + (1 − p) log(1 − p)"),
    Rule(DiscreteUniform, DiscreteUniform, discrete.discrete_uniform, "log(n_q/n_p) where contained, else +∞"),
    Rule(Categorical, Categorical, discrete.categorical, "Σ p log(p/q)", checked=True),
    Rule(OneHotCategorical, OneHotCategorical, discrete.categorical, "Σ p log(p/q)", checked=True),
    Rule(Multinomial, Multinomial, discrete.multinomial, "n Σ p log(p/q), +∞ where n_p ≠ n_q"),
    # Gamma, Dirichlet, Wishart and what is made of them
    Rule(Gamma, Gamma, gamma.gamma_gamma, "a_q [e^s − 1 − s] + g(a_q) − g(a_p) − Δa g′(a_p), s = log of means"),
    Rule(ExpGamma, ExpGamma, gamma.gamma_gamma, "as Gamma"),
    Rule(InverseGamma, InverseGamma, gamma.inverse_gamma, "as Gamma with rate = scale"),
    Rule(ExpInverseGamma, ExpInverseGamma, gamma.inverse_gamma, "as Gamma with rate = scale"),
    Rule(
        GeneralizedGamma,
        GeneralizedGamma,
        gamma.generalized_gamma,
        "as Gamma, with k = c_q/c_p: E z^k = Γ(a_p + k)/Γ(a_p), +∞ where a_p + k ≤ 0",
    ),
    Rule(Moyal, Moyal, gamma.moyal, "as generalized Gamma of concentration ½ with power −1/scale"),
    Rule(Levy, Levy, gamma.levy, "as Gamma(½) where loc_p = loc_q, +∞ where loc_p < loc_q"),
    Rule(Beta, Beta, dirichlet.beta_beta, "as Dirichlet"),
    Rule(Dirichlet, Dirichlet, dirichlet.dirichlet_dirichlet, "Bregman of Σ lgamma(a_i) − lgamma(Σ a_i) at (a_q, a_p)"),
    Rule(Wishart, Wishart, wishart.wishart_wishart, "n_q/2 [tr B − d − log det B], B = (n_p/n_q) V_q⁻¹V_p, + Bregman"),
    Rule(InverseWishart, InverseWishart, wishart.inverse_wishart, "as Wishart, with the scales inverted"),
    Rule(NormalGamma, NormalGamma, wishart.normal_gamma, "Gamma + ½[r − 1 − log r + n_q E[τ] Δm²], r = n_q/n_p"),
    Rule(NormalInverseGamma, NormalInverseGamma, wishart.normal_inverse_gamma, "as NormalGamma with rate = scale"),
    Rule(NormalWishart, NormalWishart, wishart.normal_wishart, "Wishart + ½[d (r − 1 − log r) + n_q ΔmᵀE[Λ]Δm]"),
    Rule(
        NormalInverseWishart, NormalInverseWishart, wishart.normal_inverse_wishart, "InverseWishart + as NormalWishart"
    ),
    # Directions
    Rule(VonMises, VonMises, directional.von_mises, "Bregman of log I₀ at (κ_q, κ_p) + κ_q (1 − cos Δ) I₁/I₀(κ_p)"),
    Rule(VonMisesFisher, VonMisesFisher, directional.von_mises_fisher, "as VonMises with ν = d/2 − 1: log(I_ν/κ^ν)"),
    Rule(VonMisesFisher, SphericalUniform, directional.von_mises_fisher_uniform, "as VonMisesFisher with κ_q = 0"),
    Rule(SphericalUniform, VonMisesFisher, directional.uniform_von_mises_fisher, "as VonMisesFisher with κ_p = 0"),
    Rule(
        PowerSpherical,
        PowerSpherical,
        directional.power_spherical,
        "Beta(κ_p + b, b)‖Beta(κ_q + b, b), b = (d − 1)/2",
        shared=("mean_direction",),
    ),
    Rule(PowerSpherical, SphericalUniform, directional.power_spherical_uniform, "as PowerSpherical with κ_q = 0"),
    Rule(SphericalUniform, PowerSpherical, directional.uniform_power_spherical, "as PowerSpherical with κ_p = 0"),
    Rule(
        PowerSpherical,
        VonMisesFisher,
        directional.power_spherical_von_mises_fisher,
        "PowerSpherical‖uniform + A(κ_q) − κ_q E[cos], A = log of the mean of e^{κ cos}",
    ),
    # Location and scale
    Rule(Laplace, Laplace, location_scale.laplace, "φ(a) + e^a φ(−|Δm|/s_p), a = log(s_p/s_q), φ(z) = e^z − 1 − z"),
    Rule(Gumbel, Gumbel, location_scale.gumbel, "as generalized Gamma of concentration 1 with power −1/scale"),
    Rule(Cauchy, Cauchy, location_scale.cauchy, "log[((s_p + s_q)² + Δm²)/(4 s_p s_q)]"),
    Rule(HalfCauchy, HalfCauchy, location_scale.half_cauchy, "as Cauchy with Δm = 0"),
    Rule(Pareto, Pareto, location_scale.pareto, "c_q/c_p − 1 − log(c_q/c_p) + c_q log(s_p/s_q), +∞ where s_p < s_q"),
    Rule(
        InverseGaussian,
        InverseGaussian,
        location_scale.inverse_gaussian,
        "½[r − 1 − log r + λ_q Δm²/(m_p m_q²)], r = λ_q/λ_p",
    ),
    Rule(
        GeneralizedNormal,
        GeneralizedNormal,
        location_scale.generalized_normal,
        "as generalized Gamma of concentration 1/power, of |x − loc|",
        shared=("loc",),
    ),
    Rule(
        Normal, GeneralizedNormal, location_scale.normal_generalized_normal, "as power 2, scale √2 s", shared=("loc",)
    ),
    Rule(Laplace, GeneralizedNormal, location_scale.laplace_generalized_normal, "as power 1", shared=("loc",)),
    Rule(Logistic, Logistic, location_scale.logistic, "E log(p/q) over logits", method="quadrature"),
    Rule(StudentT, StudentT, location_scale.student_t, "E log(p/q), above the real line", method="quadrature"),
    Rule(
        GeneralizedExtremeValue,
        GeneralizedExtremeValue,
        location_scale.generalized_extreme_value,
        "E log(p/q) over a Gumbel variable, +∞ where q ends before p",
        shared=("concentration",),
        method="quadrature",
    ),
    # Intervals
    Rule(Uniform, Uniform, bounded.uniform, "log(w_q/w_p) where contained, else +∞"),
    Rule(Uniform, ContinuousBernoulli, bounded.linear, "as ContinuousBernoulli on p's interval − log q(interval)"),
    Rule(Uniform, TruncatedExponential, bounded.linear, "as ContinuousBernoulli on p's interval − log q(interval)"),
    Rule(Uniform, Exponential, bounded.linear, "as ContinuousBernoulli on p's interval − log q(interval)"),
    Rule(ContinuousBernoulli, Uniform, bounded.linear, "as ContinuousBernoulli on p's interval − log q(interval)"),
    Rule(
        ContinuousBernoulli,
        ContinuousBernoulli,
        bounded.linear,
        "A(η_q) − A(η_p) − (η_q − η_p) A′(η_p), A(η) = log((e^η − 1)/η)",
    ),
    Rule(
        ContinuousBernoulli,
        TruncatedExponential,
        bounded.linear,
        "as ContinuousBernoulli on p's interval − log q(interval)",
    ),
    Rule(ContinuousBernoulli, Exponential, bounded.linear, "as ContinuousBernoulli on p's interval − log q(interval)"),
    Rule(TruncatedExponential, Uniform, bounded.linear, "as ContinuousBernoulli on p's interval − log q(interval)"),
    Rule(
        TruncatedExponential,
        ContinuousBernoulli,
        bounded.linear,
        "as ContinuousBernoulli on p's interval − log q(interval)",
    ),
    Rule(
        TruncatedExponential,
        TruncatedExponential,
        bounded.linear,
        "as ContinuousBernoulli on p's interval − log q(interval)",
    ),
    Rule(TruncatedExponential, Exponential, bounded.linear, "as ContinuousBernoulli on p's interval − log q(interval)"),
    Rule(Beta, Uniform, bounded_beta.beta_uniform, "Beta‖Beta(1, 1) + log w_q where contained, else +∞"),
    Rule(Beta, ContinuousBernoulli, bounded_beta.beta_continuous_bernoulli, "Beta‖Beta(1, 1) + A(η) − η E[x]"),
    Rule(Uniform, Beta, bounded_beta.uniform_beta, "−log w_p − E[log density] where contained, else +∞"),
    Rule(Uniform, Pareto, bounded_beta.uniform_pareto, "(a + 1) E[log(x/m)] − log(a w_p/m) where contained, else +∞"),
    Rule(
        TruncatedNormal,
        TruncatedNormal,
        truncated.quadratic,
        "E[log p − log q] where contained, else +∞",
        method="quadrature",
    ),
    Rule(
        TruncatedNormal, Normal, truncated.quadratic, "E[log p − log q] where contained, else +∞", method="quadrature"
    ),
    Rule(
        Normal, TruncatedNormal, truncated.quadratic, "E[log p − log q] where contained, else +∞", method="quadrature"
    ),
    Rule(
        TruncatedNormal, Uniform, truncated.quadratic, "E[log p − log q] where contained, else +∞", method="quadrature"
    ),
    Rule(
        TruncatedNormal,
        TruncatedExponential,
        truncated.quadratic,
        "E[log p − log q] where contained, else +∞",
        method="quadrature",
    ),
    Rule(
        TruncatedNormal,
        Exponential,
        truncated.quadratic,
        "E[log p − log q] where contained, else +∞",
        method="quadrature",
    ),
    Rule(
        Uniform, TruncatedNormal, truncated.quadratic, "E[log p − log q] where contained, else +∞", method="quadrature"
    ),
    Rule(
        TruncatedExponential,
        TruncatedNormal,
        truncated.quadratic,
        "E[log p − log q] where contained, else +∞",
        method="quadrature",
    ),
    Rule(Kumaraswamy, Kumaraswamy, kumaraswamy.kumaraswamy, "E[log p − log q]", method="quadrature"),
    Rule(Kumaraswamy, Beta, kumaraswamy.kumaraswamy_beta, "E[log p − log q]", method="quadrature"),
    Rule(Kumaraswamy, Uniform, kumaraswamy.kumaraswamy_uniform, "E[log p − log q]", method="quadrature"),
)

# Sums over independent parts, transforms in common and the like are in `_structure.py`.
WIDENINGS: tuple[Widening, ...] = (
    Widening(Independent, gaussian.diagonal_as_low_rank, "independent normals are a low-rank normal of rank 0"),
    Widening(MultivariateNormalLowRank, gaussian.low_rank_as_dense, "a low-rank normal is a multivariate normal"),
    Widening(Bernoulli, discrete.bernoulli_as_binomial, "a Bernoulli is a binomial of one trial"),
    Widening(OneHotCategorical, discrete.one_hot_as_multinomial, "one draw of a class is a multinomial of one draw"),
    Widening(Exponential, gamma.exponential_as_gamma, "an exponential is a Gamma of concentration 1"),
    Widening(Chi2, gamma.chi2_as_gamma, "a chi-squared is a Gamma of concentration df/2 and rate ½"),
    Widening(Gamma, gamma.gamma_as_power, "a Gamma is a generalized Gamma of power 1"),
    Widening(InverseGamma, gamma.inverse_gamma_as_power, "an inverse Gamma is a generalized Gamma of power −1"),
    Widening(Weibull, gamma.weibull_as_power, "a Weibull is a power of an exponential"),
    Widening(Frechet, gamma.frechet_as_power, "a Fréchet is a negative power of an exponential"),
    Widening(Chi, gamma.chi_as_power, "a chi is the root of a Gamma of concentration df/2"),
    Widening(HalfNormal, gamma.half_normal_as_power, "a half-normal is the root of a Gamma of concentration ½"),
    Widening(Rayleigh, gamma.rayleigh_as_power, "a Rayleigh is the root of an exponential"),
    Widening(
        SphericalUniform,
        directional.uniform_as_von_mises_fisher,
        "the uniform distribution on the sphere is a von Mises–Fisher of concentration 0",
    ),
    Widening(Maxwell, gamma.maxwell_as_power, "a Maxwell is the root of a Gamma of concentration 3/2"),
    # Structures
    Widening(Independent, simplify.image_of_independent, "independent log-normals are e to independent normals"),
    Widening(Sample, simplify.sample_as_independent, "draws of one distribution are independent coordinates"),
    Widening(LogNormal, images.log_normal_as_image, "a log-normal is the exponential of a normal"),
    Widening(LogLogistic, images.log_logistic_as_image, "a log-logistic is the exponential of a logistic"),
    Widening(LogitNormal, images.logit_normal_as_image, "a logit-normal is the logistic function of a normal"),
)
