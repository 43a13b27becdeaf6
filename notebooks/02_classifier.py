# %% [markdown]
# # A classifier minimizes KL to its labels
#
# Cross-entropy is the loss of every classifier. It is KL in disguise: with labels t (a distribution over the classes)
# and predictions p,
#
# $$ H(t, p) = -\sum_i t_i \log p_i = KL(t\|p) + H(t) $$
#
# H(t) does not depend on the network, so both have the same gradients, hard labels or soft. For hard labels H(t) = 0,
# and even the losses are the same.
#
# The network is a small one in flax nnx, the data are scikit-learn's 8 × 8 digits. Ten seeds of everything are in
# `experiments/classifier`; here one is enough to see.

# %%
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from vi_kit import kl

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False})

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
images, labels = digits.images[order].astype(np.float32) / 16, digits.target[order]
train, test = slice(360, None), slice(0, 360)


# %%
class Network(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(64, 64, rngs=rngs)
        self.second = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        return self.second(nnx.relu(self.first(images.reshape(len(images), -1))))


def cross_entropy(model, images, targets):
    return jnp.mean(kl.losses.softmax_cross_entropy(model(images), targets))


def divergence(model, images, targets):
    return jnp.mean(kl.losses.kl_divergence(jax.nn.log_softmax(model(images)), targets))


# %% [markdown]
# ## The same gradients
#
# Losses and gradients at fresh weights, for one-hot labels, for labels smoothed by a tenth, and for the shares that ten
# careless annotators voted for (each is wrong 40 % of the time).

# %%
rng = np.random.default_rng(1)
hard = np.eye(10, dtype=np.float32)[labels]
smoothed = np.float32(0.9) * hard + np.float32(0.01)
votes = np.repeat(labels[:, None], 10, axis=1)
votes = np.where(rng.random(votes.shape) < 0.4, (votes + rng.integers(1, 10, votes.shape)) % 10, votes)
shares = np.eye(10, dtype=np.float32)[votes].mean(axis=1)
one_vote = np.eye(10, dtype=np.float32)[votes[:, 0]]

model = Network(nnx.Rngs(0))
print("labels      cross-entropy       KL   difference   entropy   gradients differ by, of the largest")
for name, targets in {"hard": hard, "smoothed": smoothed, "shares": shares}.items():
    batch = images[train], targets[train]
    loss, gradient = nnx.value_and_grad(cross_entropy)(model, *batch)
    kl_loss, kl_gradient = nnx.value_and_grad(divergence)(model, *batch)
    pairs = list(zip(jax.tree.leaves(gradient), jax.tree.leaves(kl_gradient), strict=True))
    apart = max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs) / max(float(jnp.max(jnp.abs(a))) for a, _ in pairs)
    entropy = jax.scipy.special.entr(targets[train]).sum(axis=1).mean()
    print(f"{name:10} {loss:14.6f} {kl_loss:8.6f} {loss - kl_loss:12.6f} {entropy:9.6f}   {apart:.0e}")

# %% [markdown]
# Float32 rounds at 6e-8: the gradients are equal up to a few roundings, the losses differ by the entropy.
#
# ## Which one to log
#
# They train alike, but mean something else. The best cross-entropy that can be reached with soft labels is their
# entropy, which nobody knows by heart; the best KL is 0. Training with the annotators' shares:


# %%
def fit(loss, targets, num_steps=800, seed=0):
    """Train; return the model and the loss at every step."""
    model = Network(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, images, targets):
        value, gradient = nnx.value_and_grad(loss)(model, images, targets)
        optimizer.update(model, gradient)
        return value

    rows, values = np.random.default_rng(seed), []
    for _ in range(num_steps):
        batch = rows.integers(train.start, len(labels), 64)
        values.append(step(model, optimizer, images[batch], targets[batch]))
    return model, np.array(values)


models, curves = {}, {}
for name, loss in {"cross-entropy": cross_entropy, "KL": divergence}.items():
    models[name], curves[name] = fit(loss, shares)
smooth = np.ones(25) / 25
fig, ax = plt.subplots(figsize=(6, 3))
for name, values in curves.items():
    ax.plot(np.convolve(values, smooth, "valid"), label=name)
entropy = jax.scipy.special.entr(shares[train]).sum(axis=1).mean()
ax.axhline(entropy, color="C0", ls=":", label="entropy of the labels")
ax.axhline(0, color="C1", ls=":")
ax.set(xlabel="step", ylabel="loss, nats (mean of 25 steps)")
ax.legend(frameon=False, loc="upper right")
plt.show()
apart = jnp.max(jnp.abs(models["KL"](images[test]) - models["cross-entropy"](images[test])))
print(f"largest difference of a logit after 800 steps: {apart:.1e}")

# %% [markdown]
# Two networks, one trajectory: what roundings differ by has grown a little over 800 steps, and is still nothing.
#
# ## What the labels say comes back in the predictions
#
# KL(t‖p) is smallest at p = t, averaged over rows that look alike: a network trained on careless votes learns how often
# annotators are wrong, and says so. One vote and shares of ten votes have the same expectation, so both make it unsure
# in the same way; shares are less noisy. Smoothing makes it unsure on purpose. Held-out digits have true labels:

# %%
fig, axes = plt.subplots(1, 4, figsize=(12, 3), sharey=True)
print("labels       accuracy   log-likelihood   mean confidence")
for ax, (name, targets) in zip(
    axes, {"hard": hard, "smoothed": smoothed, "one vote": one_vote, "shares": shares}.items(), strict=True
):
    model, _ = fit(divergence, targets)
    log_probs = np.asarray(jax.nn.log_softmax(model(images[test])))
    confidence, right = np.exp(log_probs.max(axis=1)), log_probs.argmax(axis=1) == labels[test]
    likelihood = log_probs[np.arange(360), labels[test]].mean()
    print(f"{name:12} {right.mean():8.3f} {likelihood:16.3f} {confidence.mean():17.3f}")
    ax.hist(confidence, np.linspace(0, 1, 26), color="tab:blue")
    ax.axvline(right.mean(), color="tab:red", lw=1)
    ax.set(title=name, xlabel="confidence", yscale="log")
axes[0].set_ylabel("digits; red: share that is right")
plt.show()

# %% [markdown]
# ## Ten seeds
#
# From `experiments/classifier/results.json`: other splits and weights with each seed, mean ± standard error on held-out
# digits. The last column asks another question: KL from what a further annotator would say (0.6 on the true class, the
# rest spread) to the prediction. There the shares win, and whoever was trained to be sure loses.

# %%
results = json.loads(Path("../experiments/classifier/results.json").read_text())
print(f"{'labels, loss':42}   accuracy            log-likelihood      calibration error   KL to votes")
for name, row in results["held out"].items():
    cells = [row[key] for key in ("accuracy", "log-likelihood", "calibration error", "KL to votes")]
    print(f"{name:42}" + "".join(f"   {cell['mean']:7.4f} ± {cell['standard_error']:.4f}" for cell in cells))

# %% [markdown]
# **To take away.** Cross-entropy and KL to the labels are one loss up to a constant. Log KL where labels are soft: its
# zero means something. And the network becomes as sure as its labels are.
