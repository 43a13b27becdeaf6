# %% [markdown]
# # What KL measures
#
# The Kullback–Leibler divergence says how many nats are lost, on average, by whoever believes `q` where `p` is true:
#
# $$ KL(p\|q) = E_{x \sim p}\left[\log\frac{p(x)}{q(x)}\right] $$
#
# This notebook goes from that line to the choices one makes with it: which direction, closed form or draws, and what
# gradient an estimate of it really has.

# %%
import distrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import vi_kit as vk
from vi_kit import kl

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Between discrete distributions
#
# $$ KL(p\|q) = \sum_i p_i \log\frac{p_i}{q_i} $$

# %%
p = jnp.array([0.5, 0.3, 0.15, 0.05])
q = jnp.array([0.25, 0.25, 0.25, 0.25])

by_hand = jnp.sum(p * jnp.log(p / q))
print(f"by hand          {by_hand:.4f} nats")
print(f"from probs       {kl.categorical_from_probs(p, q):.4f}")
print(f"from logits      {kl.categorical(jnp.log(p) + 7.0, jnp.log(q)):.4f}   (logits need not be normalized)")
print(f"the other way    {kl.categorical_from_probs(q, p):.4f}   KL is not symmetric: it is no distance")

# %% [markdown]
# The two directions differ most where one distribution has nothing. What `p` lacks costs nothing; what `q` lacks is
# infinitely expensive: `q` said "never" and it happened.

# %%
two = jnp.array([0.5, 0.5, 0.0, 0.0])
print(f"KL(two‖p) = {kl.categorical_from_probs(two, p):.4f}     KL(p‖two) = {kl.categorical_from_probs(p, two)}")

# %% [markdown]
# **It is never negative**, and 0 only where p = q (Jensen's inequality: −log is convex). Ten thousand random pairs:

# %%
logits = 2.0 * jax.random.normal(jax.random.key(0), (2, 10_000, 4))
values = kl.categorical(logits[0], logits[1])
back = kl.categorical(logits[1], logits[0])

fig, ax = plt.subplots(figsize=(4, 4))
ax.loglog(values, back, ".", ms=1.5, alpha=0.3)
ax.plot([1e-3, 20], [1e-3, 20], "k", lw=0.8)
ax.set(xlabel="KL(p‖q), nats", ylabel="KL(q‖p), nats", title=f"smallest of all: {min(values.min(), back.min()):.1e}")
plt.show()

# %% [markdown]
# **Cross-entropy** is what `q` pays for coding draws of `p`, entropy what `p` itself would pay. KL is the difference:
#
# $$ KL(p\|q) = H(p, q) - H(p) $$
#
# So whoever minimizes a cross-entropy over `q` minimizes KL: the entropy of `p` is a constant. (Notebook
# `02_classifier` is about that.) As a way to *compute* KL the difference is poor: two large numbers, and in float32
# nothing is left of a small one.

# %%
p_logits = jnp.log(p)
for distance in [1.0, 1e-2, 1e-4]:
    q_logits = p_logits + distance * jnp.array([1.0, -1.0, 1.0, -1.0])
    difference = kl.cross_entropy(p_logits, q_logits) - kl.entropy(p_logits)
    wide = np.asarray([p_logits, q_logits], np.float64)
    log_p, log_q = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    truth = np.sum(np.exp(log_p) * (log_p - log_q))
    print(
        f"exact {truth:.3e}   kl.categorical {kl.categorical(p_logits, q_logits):.3e}   H(p, q) − H(p) {difference:.1e}"
    )

# %% [markdown]
# ## Between continuous distributions
#
# The sum becomes an integral over densities. Unlike the entropy of a density, it does not depend on the coordinates:
# measured in meters, millimeters or logarithms, KL is the same number.

# %%
p, q = distrax.Normal(0.0, 1.0), distrax.Normal(1.0, 2.0)
print(f"KL of normals      {vk.kl_divergence(p, q):.4f}   entropy of p {p.entropy():.3f}")

stretched = [distrax.Transformed(d, distrax.ScalarAffine(0.0, 1_000.0)) for d in (p, q)]
print(f"in thousandths     {vk.kl_divergence(*stretched):.4f}   entropy of p {p.entropy() + np.log(1_000.0):.3f}")

lognormal = [distrax.Transformed(d, distrax.Lambda(jnp.exp)) for d in (p, q)]
print(f"of exp(x)          {vk.kl_divergence(*lognormal):.4f}")

grid = jnp.linspace(-5, 7, 400)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(grid, p.prob(grid), label="p = N(0, 1)")
left.plot(grid, q.prob(grid), label="q = N(1, 2²)")
left.legend(frameon=False)
right.plot(grid, p.prob(grid) * (p.log_prob(grid) - q.log_prob(grid)), label=f"p log p/q: {vk.kl_divergence(p, q):.3f}")
right.plot(grid, q.prob(grid) * (q.log_prob(grid) - p.log_prob(grid)), label=f"q log q/p: {vk.kl_divergence(q, p):.3f}")
right.axhline(0, color="k", lw=0.6)
right.set(ylim=(-0.2, 0.6))
right.legend(frameon=False, title="area in nats", loc="upper left", ncol=2)
plt.show()

# %% [markdown]
# The integrand is negative where p < q; only the area is not. KL(q‖p) is the larger one: `q` goes far out, where `p`
# has next to nothing.
#
# ## Closed form, quadrature, draws
#
# Where there is a closed form, `vk.kl_divergence` has it, and says so where there is none:

# %%
mixture = distrax.MixtureSameFamily(
    distrax.Categorical(probs=jnp.array([0.6, 0.4])),
    distrax.Normal(jnp.array([-3.0, 3.0]), jnp.array([0.7, 1.0])),
)
try:
    vk.kl_divergence(mixture, p)
except NotImplementedError as error:
    print(error)

# %% [markdown]
# In one dimension one integrates. In many one draws, and the answer has a standard error. A number without it is not
# an answer: the same estimate with another key is another number.

# %%
exact = vk.quadrature_kl(mixture, q).value
print(f"quadrature: {exact:.5f}")
for num_samples in [100, 10_000]:
    keys = jax.random.split(jax.random.key(0), 3)
    found = jax.vmap(lambda key, n=num_samples: vk.estimate_kl(key, mixture, q, num_samples=n))(keys)
    for value, error in zip(found.value, found.standard_error, strict=True):
        print(f"{num_samples:6} draws: {value:.4f} ± {error:.4f}")

# %% [markdown]
# Is that error to be believed? In 400 repetitions the truth should lie within two standard errors 95 times in 100.

# %%
keys = jax.random.split(jax.random.key(1), 400)
found = jax.vmap(lambda key: vk.estimate_kl(key, mixture, q, num_samples=200))(keys)
within = jnp.abs(found.value - exact) < 2 * found.standard_error

fig, ax = plt.subplots(figsize=(9, 2.6))
first = slice(0, 80)
colors = np.where(within[first], "tab:blue", "tab:red")
ax.errorbar(range(80), found.value[first], 2 * found.standard_error[first], fmt="none", ecolor=colors, lw=1)
ax.axhline(exact, color="k", lw=0.8)
ax.set(xlabel="repetition", ylabel="KL, nats", title=f"the truth is inside {100 * within.mean():.1f} % of the time")
plt.show()

# %% [markdown]
# ## Which direction: one Gaussian for two modes
#
# Fit q = N(m, s²) to the mixture p.
#
# - **Reverse**, KL(q‖p) = E_q[log q − log p]: needs the density of `p` only, up to its constant: variational
#   inference. Punishes q for being where p is not, so it picks one mode: which one depends on the start.
# - **Forward**, KL(p‖q) = E_p[log p − log q]: needs draws of `p` (maximum likelihood). Punishes q for not being where
#   p is, so it covers both, and the gap between them. For a Gaussian it matches mean and variance exactly.

# %%
target = vk.make_target(
    lambda x: mixture.log_prob(x[0]), 1, sample=lambda key: mixture.sample(seed=key)[None], log_normalizer=0.0
)
family = vk.families.MeanField(1)


def fit(objective, mean, num_steps=1_500):
    """Return the mean and standard deviation of q after gradient descent from N(mean, 1)."""
    rate = optax.cosine_decay_schedule(0.05, num_steps)
    algorithm = vk.algorithms.GradientDescent(objective, optax.adam, learning_rate=rate)
    start = family.init(jax.random.key(0), mean=mean[None], scale=jnp.ones(1))
    q = family.dist(vk.optimize(jax.random.key(1), target, algorithm, start, num_steps=num_steps).params)
    return q.mean()[0], q.std()[0]


starts = jnp.array([-3.0, 3.0])
objectives = {
    "reverse": vk.objectives.ReverseKL(family, num_samples=64),
    "forward": vk.objectives.ForwardKL(family, num_samples=512),
}
fits = {name: jax.vmap(lambda mean, o=objective: fit(o, mean))(starts) for name, objective in objectives.items()}

fitted = distrax.Normal(*(jnp.stack([fits[name][i] for name in fits]) for i in range(2)))  # of shape (2 fits, 2 starts)
backward, onward = vk.quadrature_kl(fitted, mixture).value, vk.quadrature_kl(mixture, fitted).value
print("fit      start   mean     sd   KL(q‖p)  KL(p‖q)")
for i, name in enumerate(fits):
    for j, start in enumerate(starts):
        moments = f"{fitted.loc[i, j]:8.3f} {fitted.scale[i, j]:6.3f}"
        print(f"{name}  {start:4.0f} {moments}  {backward[i, j]:8.3f} {onward[i, j]:8.3f}")
draws = mixture.sample(seed=jax.random.key(2), sample_shape=(1_000_000,))
print(f"p itself      {draws.mean():8.3f} {draws.std():6.3f}")

# %% [markdown]
# The landscapes show why. Both KLs for every mean and standard deviation of q; crosses are the fits above.

# %%
grid = jnp.linspace(-15, 15, 600)  # fine and wide enough for a sum in place of the integral
means, sds = jnp.meshgrid(jnp.linspace(-5, 5, 61), jnp.geomspace(0.4, 5, 41))
log_q = distrax.Normal(means[..., None], sds[..., None]).log_prob(grid)
log_p = mixture.log_prob(grid)
landscape = {
    "reverse": jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1) * (grid[1] - grid[0]),
    "forward": jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1) * (grid[1] - grid[0]),
}

fig, axes = plt.subplots(1, 3, figsize=(12, 3.4))
axes[0].fill_between(grid, mixture.prob(grid), color="0.85")
axes[0].set(xlim=(-8, 8))
for (name, (m, s)), color in zip(fits.items(), ["tab:red", "tab:blue"], strict=True):
    for i in range(2):
        q = distrax.Normal(m[i], s[i])
        axes[0].plot(grid, q.prob(grid), color=color, label=f"{name} KL" if i == 0 else None)
axes[0].legend(frameon=False)
axes[0].set(title="p in gray, the fits", xlabel="x")
for ax, title, (name, values) in zip(axes[1:], ["KL(q‖p)", "KL(p‖q)"], landscape.items(), strict=True):
    ax.contourf(means, sds, jnp.log(values), 25, cmap="viridis_r")
    ax.plot(*fits[name], "kx", ms=9, mew=2)
    ax.set(yscale="log", xlabel="mean of q", ylabel="sd of q", title=f"log {title}, minimized by the {name} fit")
plt.tight_layout()
plt.show()

# %% [markdown]
# `vk.fit` does the same with a start, a budget and a verdict (and, given no algorithm, finds a mixture by itself). Here
# the target can also be drawn from, so the report can see what draws of q alone never show: the mode that q left out.

# %%
rate = optax.cosine_decay_schedule(0.05, 1_500)
algorithm = vk.algorithms.GradientDescent(objectives["reverse"], optax.adam, learning_rate=rate)
posterior = vk.fit(jax.random.key(3), target, algorithm, num_steps=1_500, progress=False)
print(f"reliable: {posterior.report.reliable} — {posterior.report.reason}")

# %% [markdown]
# ## Estimating KL from draws: k1, k2, k3
#
# With draws x ~ p and the log ratio r = log p(x) − log q(x), three estimators are in use
# ([Schulman 2020](http://joschu.net/blog/kl-approx.html); he writes q for the one that is drawn from):
#
# | | formula | |
# |---|---|---|
# | k1 | r | unbiased; negative half of the time where p and q are close |
# | k2 | r²/2 | biased, little noise |
# | k3 | e⁻ʳ − 1 + r | unbiased, little noise, never negative |
#
# His table has p = N(0, 1) and q = N(0.1, 1) or N(1, 1). Here it is again, from ten million draws, beside the exact
# values. One published entry is rounded down: the bias of k2 at 0.1 is μ²/4 = 0.0025, printed as 0.002.

# %%
published = {  # (bias, standard deviation) / true KL
    0.1: {"k1": (0, 20), "k2": (0.002, 1.42), "k3": (0, 1.42)},
    1.0: {"k1": (0, 2), "k2": (0.25, 1.73), "k3": (0, 1.7)},
}
mu = np.array([0.1, 1.0])
exact = {
    "k1": (0 * mu, 2 / mu),
    "k2": (mu**2 / 4, np.sqrt(2 + mu**2)),
    "k3": (0 * mu, np.sqrt(np.expm1(mu**2) - mu**2) / (mu**2 / 2)),
}
ESTIMATORS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}
CHUNKS, DRAWS = 100, 100_000


@jax.jit
def moments(key, mean):
    """Return the mean and the mean square of each estimator over one chunk of draws, in units of the true KL."""
    x = jax.random.normal(key, (DRAWS,))
    r = 0.5 * (x - mean) ** 2 - 0.5 * x**2
    values = jnp.stack([k(r) for k in ESTIMATORS.values()]) / (mean**2 / 2)
    return values.mean(axis=1), (values**2).mean(axis=1)


print("  μ          bias/true: published   exact   measured             sd/true: published   exact  measured")
for column, mean in enumerate(mu):
    chunks = [moments(key, mean) for key in jax.random.split(jax.random.key(4), CHUNKS)]
    first, second = np.asarray(chunks, np.float64).mean(axis=0)
    sds = np.sqrt(second - first**2)
    for k, name in enumerate(ESTIMATORS):
        told, right = published[float(mean)][name], [value[column] for value in exact[name]]
        error = sds[k] / np.sqrt(CHUNKS * DRAWS)
        bias = f"{told[0]:10.3f} {right[0]:9.4f} {first[k] - 1:9.4f} ± {error:.4f}"
        print(f"{mean:4.1f}  {name}        {bias}   {told[1]:10.2f} {right[1]:9.3f} {sds[k]:9.3f}")

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3))
x = jax.random.normal(jax.random.key(5), (100_000,))
for ax, mean, edges in zip(axes, mu, [np.linspace(-0.02, 0.03, 120), np.linspace(-2, 4, 120)], strict=True):
    r = 0.5 * (x - mean) ** 2 - 0.5 * x**2
    for name, k in ESTIMATORS.items():
        ax.hist(np.asarray(k(r)), edges, histtype="step", density=True, label=name)
    ax.axvline(mean**2 / 2, color="k", lw=0.8)
    ax.set(yscale="log", xlabel="value of one draw, nats", title=f"q = N({mean:g}, 1), true KL {mean**2 / 2:.3f}")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# k3 is not always the better one. Its variance needs E_p[(q/p)²], which is infinite for p = N(0, 1) and q = N(0, s²)
# once s² ≥ 2. Then its standard error means nothing: at s = 4 it is eight of them off, and nothing in its own output
# says so, while k1 is fine. `kl.control_variate` fits the coefficient that k1 sets to 0 and k3 to 1, and stays close to
# the better of the two.

# %%
for s in [1.1, 2.0, 4.0]:
    x = jax.random.normal(jax.random.key(6), (100_000,))
    log_p, log_q = distrax.Normal(0.0, 1.0).log_prob(x), distrax.Normal(0.0, s).log_prob(x)
    line = [f"s = {s:.1f}, exact {kl.normal(0.0, 0.0, 0.0, jnp.log(s)):.4f}:"]
    for name, k in (ESTIMATORS | {"control_variate": kl.control_variate}).items():
        found = kl.estimate(log_p, log_q, estimator=k)
        line.append(f"{name} {found.value:.4f} ± {found.standard_error:.4f}")
    print("  ".join(line))

# %% [markdown]
# ## What each one's gradient really is
#
# A good estimate of the value need not be a good loss. Train p (a policy, a student) on its own draws, which are
# constants to the gradient, and average r, r²/2 or e⁻ʳ − 1 + r as the loss: what comes out *in expectation* is
#
# | what is differentiated | expected gradient |
# |---|---|
# | k1 as a loss | 0, as E_p[∇ log p] is |
# | k1 in the reward: r (constant) · log p | ∇KL(p‖q), right |
# | k2 as a loss | ∇KL(p‖q), right: r ∇log p, draw by draw the same |
# | k3 as a loss | ∇KL(q‖p): the other direction |
# | k3 with the ratio p / constant(p) in front | ∇KL(p‖q), right: the same again |
# | `kl.estimate(…)`, whatever estimator | ∇KL(p‖q), right, with a leave-one-out baseline |
#
# Measured with p and q over five classes, where both exact gradients are known.

# %%
theta = jnp.array([1.0, 0.3, -0.5, -1.0, 0.2])
reference = jnp.array([-1.0, 0.8, 0.4, -0.2, 1.0])
NUM = 400_000
x = jax.random.categorical(jax.random.key(7), theta, shape=(NUM,))
constant = jax.lax.stop_gradient


def log_ratio(theta, x):
    log_p = jax.nn.log_softmax(theta)[x]
    return log_p, log_p - jax.nn.log_softmax(reference)[x]


losses = {
    "k1 as a loss": lambda log_p, r: kl.k1(r),
    "k1 in the reward": lambda log_p, r: constant(r) * log_p,
    "k2 as a loss": lambda log_p, r: kl.k2(r),
    "k3 as a loss": lambda log_p, r: kl.k3(r),
    "k3 with ratio": lambda log_p, r: jnp.exp(log_p - constant(log_p)) * kl.k3(r),
}


def pair_loss(theta, x):
    """The estimate from a pair of draws, of which each is the other's baseline."""
    log_p, r = log_ratio(theta, x)
    return kl.estimate(log_p, log_p - r, estimator=kl.k3).value


rows = {}
for name, loss in losses.items():
    gradients = jax.jit(jax.vmap(jax.grad(lambda theta, x, loss=loss: loss(*log_ratio(theta, x))), (None, 0)))(theta, x)
    rows[name] = gradients.mean(axis=0), gradients.std(axis=0) / np.sqrt(len(gradients))
gradients = jax.jit(jax.vmap(jax.grad(pair_loss), (None, 0)))(theta, x.reshape(-1, 2))
rows["kl.estimate"] = gradients.mean(axis=0), gradients.std(axis=0) / np.sqrt(len(gradients))

right = jax.grad(lambda theta: kl.categorical(theta, reference))(theta)
other = jax.grad(lambda theta: kl.categorical(reference, theta))(theta)
print("largest distance in standard errors from   0        ∇KL(p‖q)  ∇KL(q‖p)    error of one component")
for name, (mean, error) in rows.items():
    away = [float(jnp.max(jnp.abs(mean - truth) / error)) for truth in (0 * right, right, other)]
    print(f"{name:38}" + "".join(f"{value:10.1f}" for value in away) + f"{float(error.max()):16.5f}")

# %%
fig, ax = plt.subplots(figsize=(10, 3.4))
shown = {"∇KL(p‖q)": (right, 0 * right), **rows, "∇KL(q‖p)": (other, 0 * other)}
for i, (name, (mean, error)) in enumerate(shown.items()):
    ax.bar(np.arange(5) + (i - 3.5) * 0.11, mean, 0.1, yerr=3 * error, label=name, color=f"C{i}" if i else "k")
ax.axhline(0, color="k", lw=0.6)
ax.set(xlabel="component of θ", ylabel="expected gradient")
ax.legend(frameon=False, ncol=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.25))
plt.show()

# %% [markdown]
# k1 as a loss trains nothing (it only adds noise), and k3 as a loss, as in GRPO, follows the *other* KL. Both look fine
# in a log of values. In `kl.estimate` value and gradient are chosen apart: `estimator=` is what is averaged,
# `gradient=` what is differentiated (`kl.score` by default, `kl.pathwise` for reparameterized draws, `kl.none` to
# watch only).
#
# **To take away.** KL has a direction: forward covers, reverse picks. Closed form where there is one, quadrature in one
# dimension, else draws with a standard error, which can be believed where the variance is finite. And the gradient of
# an estimate is not the estimate of the gradient.
