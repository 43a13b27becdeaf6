# %% [markdown]
# # KL in reinforcement learning
#
# A policy that is changed by what it earned must not be changed too far: what it knows of its rewards holds near where
# it was. "How far" is a KL divergence, in two places:
#
# * per update, KL(old‖new): trust regions (TRPO) and penalties (PPO);
# * over all of training, KL(π‖reference): fine-tuning a model for a reward without losing what it could do.
#
# This notebook has small versions of both. The experiment in `experiments/policy` has the large ones: two mechanical
# systems and a character model.

# %%
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from vi_kit import kl

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## The best policy for a price
#
# With a reward r, a reference ρ and a price β of a nat, the best policy is known in closed form:
#
# $$ \max_\pi \; E_\pi[r] - \beta\, KL(\pi\|\rho) \quad\text{at}\quad \pi^*(x) \propto \rho(x)\, e^{r(x)/\beta},
#    \qquad \text{value } \beta \log E_\rho\, e^{r/\beta} $$
#
# and what any other policy falls short by is a KL as well: value(π*) − value(π) = β KL(π‖π*).

# %%
rho = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
r = jnp.array([0.0, 0.0, 1.0, 2.0])

for beta in (10.0, 1.0, 0.3):
    best = kl.regularized_policy(rho, r, beta)
    value = kl.regularized_value(rho, r, beta)
    print(f"β = {beta:4}:  π* = {np.exp(best).round(3)}   E[r] = {np.exp(best) @ r:.3f}", end="   ")
    print(f"KL(π*‖ρ) = {kl.categorical(best, rho):.3f}   value = {value:.3f}")

beta, some = 1.0, jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
gap = kl.regularized_value(rho, r, beta) - (jnp.exp(some) @ r - beta * kl.categorical(some, rho))
other = beta * kl.categorical(some, kl.regularized_policy(rho, r, beta))
print(f"\nanother policy loses {gap:.4f} = β KL(π‖π*) = {other:.4f}")

# %% [markdown]
# ## The same from draws
#
# A language model has too many texts to list; KL(π‖ρ) comes from texts drawn from π. Here is the smallest such model:
# words of three letters from an alphabet of five, each letter's logits looked up by its place and the letter before.
# All 125 words can be listed, so nothing that follows has to be believed.

# %%
size, length = 5, 3
words = jnp.asarray(np.stack(np.meshgrid(*[np.arange(size)] * length, indexing="ij"), -1).reshape(-1, length))
reference = 1.5 * jax.random.normal(jax.random.key(1), (length, size, size))
reward = jnp.sum((words[:, 1:] == words[:, :-1]).astype(jnp.float32), axis=1)  # letters said twice
beta = 0.5


def logits(table, words):
    before = jnp.concatenate([jnp.zeros_like(words[:, :1]), words[:, :-1]], axis=1)
    return table[jnp.arange(length), before]  # (words, places, letters)


def log_probs(table, words):
    each = jax.nn.log_softmax(logits(table, words))
    return jnp.take_along_axis(each, words[..., None], axis=-1)[..., 0]  # of each letter


def log_prob(table):
    return jnp.sum(log_probs(table, words), axis=1)  # of each of the 125 words


def value(table):
    return jnp.exp(log_prob(table)) @ reward - beta * kl.categorical(log_prob(table), log_prob(reference))


best = kl.regularized_policy(log_prob(reference), reward, beta)
print(
    f"reward of the reference {jnp.exp(log_prob(reference)) @ reward:.3f}, "
    f"of the best policy {jnp.exp(best) @ reward:.3f}"
)
print(
    f"the best policy's KL {kl.categorical(best, log_prob(reference)):.3f} nats, its value "
    f"{kl.regularized_value(log_prob(reference), reward, beta):.3f}"
)

# %% [markdown]
# With log ratios `log π − log ρ` of drawn words there are three well-known estimators of the **value** of KL. All are
# fine to look at:

# %%
policy = reference + jax.random.normal(jax.random.key(2), reference.shape)
drawn = words[jax.random.categorical(jax.random.key(3), log_prob(policy), shape=(2_000,))]
log_p, log_q = log_probs(policy, drawn), log_probs(reference, drawn)

print(f"exact                    {kl.categorical(log_prob(policy), log_prob(reference)):.4f}")
for name in ("k1", "k2", "k3"):
    found = kl.estimate(log_p, log_q, estimator=getattr(kl, name))
    print(f"{name}                       {found.value:.4f} ± {found.standard_error:.4f}")
found = kl.sequence(logits(policy, drawn), logits(reference, drawn))
print(f"sequence (all letters)   {found.mean():.4f} ± {found.std(ddof=1) / len(found) ** 0.5:.4f}")

# %% [markdown]
# ## ... and its gradient
#
# The trouble begins when one is written into a loss and differentiated. The draws depend on the parameters too, and
# automatic differentiation does not know. On average:
#
# | written into the loss | its gradient |
# | --- | --- |
# | k1 | 0 |
# | k2 of the whole word | that of KL(π‖ρ), as it should be |
# | k3 | that of KL(ρ‖π), the other direction |
# | k2, k3 or the exact KL letter by letter | blind to what a letter leads to |
#
# `kl.estimate` keeps the two apart: `estimator` is what is averaged, `gradient` what is differentiated, by default
# the right one.
# To see the wrong ones, they must be passed on purpose. Listing all words once is a draw from the uniform
# distribution without
# any error, so given that as `log_behavior` each expected gradient comes out exactly.

# %%
constant = jax.lax.stop_gradient
ways = {
    "k1 in the reward": lambda p, q, w: constant(jnp.exp(w) * jnp.sum(p - q, 1, keepdims=True)) * p,
    "k2 of the word": lambda p, q, w: kl.k2(jnp.sum(p - q, 1, keepdims=True), constant(w)) * jnp.ones(length) / length,
    "k1 as a loss": lambda p, q, w: kl.k1(p - q, constant(w)),
    "k2 of each letter": lambda p, q, w: kl.k2(p - q, constant(w)),
    "k3 of each letter": lambda p, q, w: kl.k3(p - q, constant(w)),
}
uniform = jnp.full(words.shape, -np.log(size), jnp.float32)


def listed(table, gradient):
    p, q = log_probs(table, words), log_probs(reference, words)
    return kl.estimate(p, q, gradient=gradient, log_behavior=uniform).value


true = jax.grad(lambda table: kl.categorical(log_prob(table), log_prob(reference)))(policy).ravel()
for name, gradient in ways.items():
    found = jax.grad(listed)(policy, gradient).ravel()
    ratio = jnp.linalg.norm(found) / jnp.linalg.norm(true)
    cosine = f"cosine {found @ true / jnp.linalg.norm(found) / jnp.linalg.norm(true):6.3f}" if ratio > 1e-3 else ""
    print(f"{name:20} length {ratio:.3f} of the true one   {cosine}")

# %% [markdown]
# Training with each: 64 words a step, the reward by score function with a leave-one-out baseline, the value of the
# policy
# exact, by listing. `kl.score`, the default, is k1 in the reward with a baseline as well.


# %%
def train(gradient, key, num_steps=300, num=64):
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, num_steps))

    def loss(table, chosen):
        drawn, got = words[chosen], reward[chosen]
        p, q = log_probs(table, drawn), log_probs(reference, drawn)
        others = (jnp.sum(got) - got) / (num - 1)
        return beta * kl.estimate(p, q, gradient=gradient).value - jnp.mean((got - others) * jnp.sum(p, axis=1))

    def step(carry, key):
        table, state = carry
        chosen = jax.random.categorical(key, log_prob(table), shape=(num,))
        change, state = optimizer.update(jax.grad(loss)(table, chosen), state)
        return (optax.apply_updates(table, change), state), kl.categorical(log_prob(table), best)

    (table, _), gaps = jax.lax.scan(step, (reference, optimizer.init(reference)), jax.random.split(key, num_steps))
    return table, gaps


fig, ax = plt.subplots(figsize=(6, 3.6))
for name, gradient in ({"kl.score": kl.score} | ways).items():
    tables, gaps = jax.jit(jax.vmap(lambda key, g=gradient: train(g, key)))(jax.random.split(jax.random.key(4), 5))
    values = jax.vmap(value)(tables)
    print(f"{name:20} value {values.mean():.5f} ± {values.std(ddof=1) / 5**0.5:.5f}")
    ax.semilogy(gaps.mean(axis=0), label=name)
print(f"{'the best policy':20} value {kl.regularized_value(log_prob(reference), reward, beta):.5f}")
ax.set(xlabel="step", ylabel="KL(π‖π*), nats")
ax.legend(fontsize="x-small", loc=(1.01, 0.3))
plt.show()

# %% [markdown]
# The right ones go on towards π*; k1 in the reward and k2 of the word are even the same draw by draw (their lines are
# one),
# and the default's baseline leaves less noise. The others come to rest elsewhere, and no number of draws would help: k2
# letter by letter near, k3 far, k1 farther than where it began. Nothing in a curve of the reward shows it. k1 as a loss
# earns the most reward of all, for it does not see the price.
#
# ## How far in one update
#
# TRPO solves for the step directly: down the natural gradient, as far as KL(old‖new) ≤ δ allows. `kl.trust_region_step`
# takes a loss, a policy, the parameters and the data. PPO's penalty takes a few steps of Adam and adapts its
# coefficient by `kl.AdaptiveCoefficient` afterwards. It can be given a limit as well: the step of Adam that takes the
# KL above it is taken back, and the last. A task small enough for a notebook: 512 states, 4 actions, a network that
# has to find out which action each quadrant rewards.

# %%
states = jax.random.normal(jax.random.key(5), (512, 2))
good = 2 * (states[:, 0] > 0) + (states[:, 1] > 0)
advantages = jax.nn.one_hot(good, 4) - 0.25
first, second = jax.random.split(jax.random.key(6))
start = {"in": jax.random.normal(first, (2, 32)), "out": 0.1 * jax.random.normal(second, (32, 4))}


def network(params, states):
    return jnp.tanh(states @ params["in"]) @ params["out"]


def surrogate(params, data):
    return -jnp.mean(jnp.sum(jax.nn.softmax(network(params, data)) * advantages, axis=-1))


@jax.jit
def trust_region(params, _):
    step = kl.trust_region_step(surrogate, network, params, states, max_kl=0.01, damping=1e-3)
    return step.params, (step.kl, surrogate(step.params, states))


adaptive = kl.AdaptiveCoefficient(kl.ThresholdRule())
adam = optax.adam(0.01)


def penalty(adapt, limit=jnp.inf):
    def update(carry, _):
        params, state, coefficient = carry
        old = network(params, states)

        def distance(params):
            return kl.reduce(kl.categorical(old, network(params, states)))

        def loss(params):
            return surrogate(params, states) + coefficient.coefficient * distance(params)

        def inner(carry, _):
            old, tried, going = carry
            change, adam_state = adam.update(jax.grad(loss)(old[0]), old[1])
            new = optax.apply_updates(old[0], change), adam_state
            tried = jnp.where(going, distance(new[0]), tried)
            going = going & (tried <= limit)
            return (jax.tree.map(lambda a, b: jnp.where(going, a, b), new, old), tried, going), None

        first = (params, state), jnp.zeros(()), jnp.ones((), bool)
        ((params, state), tried, _), _ = jax.lax.scan(inner, first, length=10)
        return (params, state, adapt(coefficient, tried)), (distance(params), surrogate(params, states))

    return update


begin = (start, adam.init(start), adaptive.init(coefficient=1.0, target=0.01))
results = {
    "trust region": jax.lax.scan(trust_region, start, length=25)[1],
    "adaptive penalty": jax.lax.scan(penalty(adaptive.update), begin, length=25)[1],
    "the same, held": jax.lax.scan(penalty(adaptive.update, limit=0.015), begin, length=25)[1],
    "penalty of 1": jax.lax.scan(penalty(lambda coefficient, moved: coefficient), begin, length=25)[1],
}

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for name, (moved, loss) in results.items():
    axes[0].plot(0.25 - loss, label=name)
    axes[1].semilogy(moved, label=name)
axes[0].set(xlabel="update", ylabel="chance of the good action")
axes[1].axhline(0.01, color="k", ls="--", lw=0.8, label="budget")
axes[1].set(xlabel="update", ylabel="KL(old‖new), nats")
axes[1].legend(fontsize="small")
plt.show()

for name, (moved, _) in results.items():
    print(f"{name:16} largest step {moved.max():.4f} nats, median {jnp.median(moved):.4f}")

# %% [markdown]
# A trust region is a promise about each update, held from the first. An adaptive penalty corrects itself after the
# fact: it begins with whatever coefficient it was given, is over the budget until it has found its own, and near it
# while there is something to be gained; with a limit it is a promise too, of 1.5 times the budget here. A fixed
# penalty has no budget at all. (In the end nothing is left to learn, and all steps are small.)
#
# ## In full
#
# The experiment holds the same budget on a cart with a pole and on a pendulum, five seeds each; here the KL of every
# update, a dot each:

# %%
full = json.loads(Path("../experiments/policy/results.json").read_text())

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
for ax, (task, methods) in zip(axes, full["control"].items(), strict=True):
    for place, found in enumerate(methods.values()):
        every = np.ravel(found["kl"])
        ax.semilogy(place + np.random.default_rng(0).uniform(-0.3, 0.3, len(every)), every, ".", ms=2)
    ax.axhline(full["settings"]["control"]["target"], color="k", ls="--", lw=0.8)
    ax.set(title=task, ylim=(1e-4, 0.5), xticks=range(len(methods)))
    ax.set_xticklabels([name.replace(", ", ",\n").replace(" ", "\n") for name in methods], fontsize="x-small")
axes[0].set_ylabel("KL(old‖new), nats")
plt.show()

# %% [markdown]
# and fine-tunes a recurrent network of characters with each gradient, where all 32,768 texts of three characters are
# listed:

# %%
print(f"{'the best policy':32} value {full['short']['best']['value']:7.3f}")
for name, found in full["short"]["ways"].items():
    error = found["value"]["standard_error"]
    print(f"{name:32} value {found['value']['mean']:7.3f}" + (f" ± {error:.3f}" if error else ""))

# %% [markdown]
# **To take away**
#
# * The value of E[r] − β KL has a known best, π ∝ ρ exp(r/β): `kl.regularized_policy`. Wherever it can be listed,
#   compare with it.
# * An estimate of KL may be looked at as k1, k2 or k3, but not differentiated as it stands: leave `gradient` to
#   `kl.estimate`, or use
#   `kl.sequence` with the drawn tokens.
# * Watch KL(old‖new) of each update against its budget: `kl.trust_region_step` holds it, `kl.AdaptiveCoefficient`
#   steers by it.
