# %% [markdown]
# # A variational autoencoder, and what its KL does
#
# A latent variable model explains an image x by a code z: $p(x) = \int p(z)\, p(x|z)\, dz$. The integral is out of
# reach, so an encoder $q(z|x)$ is trained along with the decoder, by the evidence lower bound
#
# $$ \log p(x) \;\ge\; E_{q(z|x)}[\log p(x|z)] - KL(q(z|x)\,\|\,p(z)) $$
#
# The first term wants codes from which the image can be told, the second wants codes that look like the prior. This
# notebook trains one on handwritten digits, looks at what the KL does to the latents, and then tightens the bound with
# importance weights. Ten seeds of everything are in `experiments/vae`.

# %%
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from jax.scipy.stats import norm
from sklearn.datasets import load_digits

from vi_kit import kl

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False})

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
images = jnp.asarray(digits.images.reshape(-1, 64)[order] / 16, jnp.float32)
labels = digits.target[order]
train = images[360:]
test = jax.random.bernoulli(jax.random.key(0), images[:360]).astype(jnp.float32)  # binarized once
test_labels = labels[:360]
print(train.shape, test.shape)

# %% [markdown]
# ## The model
#
# Two small networks. The encoder returns the mean and the log standard deviation of a normal; the decoder the logit of
# every pixel.


# %%
class VAE(nnx.Module):
    def __init__(self, latents, rngs):
        self.encoder = nnx.Sequential(nnx.Linear(64, 64, rngs=rngs), jnp.tanh, nnx.Linear(64, 2 * latents, rngs=rngs))
        self.decoder = nnx.Sequential(nnx.Linear(latents, 64, rngs=rngs), jnp.tanh, nnx.Linear(64, 64, rngs=rngs))

    def encode(self, x):
        return jnp.split(self.encoder(x), 2, axis=-1)

    def log_likelihood(self, x, z):
        logits = self.decoder(z)
        return jnp.sum(x * logits - jax.nn.softplus(logits), axis=-1)


def draw(key, mean, log_scale, num):
    return mean + jnp.exp(log_scale) * jax.random.normal(key, (num, *mean.shape))


# %% [markdown]
# ## The loss
#
# Reconstruction by one draw, KL in closed form: `kl.normal(mean, log_scale)` is $KL(N(m, s^2)\,\|\,N(0, 1))$ for every
# latent of every image, in nats. What is done with that array is up to the model: a sum is the ELBO.


# %%
def elbo_loss(model, x, key, step):
    mean, log_scale = model.encode(x)
    fit = jnp.mean(model.log_likelihood(x, draw(key, mean, log_scale, 1)))
    return jnp.mean(jnp.sum(kl.normal(mean, log_scale), axis=-1)) - fit


def train_model(loss, latents=16, steps=1200, seed=0):
    model = VAE(latents, nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_decay_schedule(2e-2, steps)), wrt=nnx.Param)

    @nnx.jit
    def update(model, optimizer, key, step):
        row_key, pixel_key, key = jax.random.split(key, 3)
        rows = jax.random.randint(row_key, (100,), 0, len(train))
        x = jax.random.bernoulli(pixel_key, train[rows]).astype(jnp.float32)  # binarized anew every time
        value, gradient = nnx.value_and_grad(loss)(model, x, key, step)
        optimizer.update(model, gradient)
        return value

    update = nnx.cached_partial(update, model, optimizer)
    for step, key in enumerate(jax.random.split(jax.random.key(seed), steps)):
        value = update(key, step)
    print(f"loss at the end {value:.1f}")
    return model


vae = train_model(elbo_loss)

# %% [markdown]
# ## How good is it?
#
# The ELBO is only a bound, and how loose it is depends on the encoder. With K draws there is a tighter one,
#
# $$ \log p(x) \;\ge\; E\left[\log \frac1K \sum_k w_k\right], \qquad w_k = \frac{p(x, z_k)}{q(z_k|x)} $$
#
# which is the ELBO for K = 1 and rises to log p(x). `kl.importance_weighted_bound` takes the log weights.


# %%
def log_weights(model, x, z, mean, log_scale):
    log_prior = jnp.sum(norm.logpdf(z), axis=-1)
    log_q = jnp.sum(norm.logpdf(z, mean, jnp.exp(log_scale)), axis=-1)
    return model.log_likelihood(x, z) + log_prior - log_q


@nnx.jit
def test_log_weights(model):
    mean, log_scale = model.encode(test)
    return log_weights(model, test, draw(jax.random.key(1), mean, log_scale, 500), mean, log_scale)


weights = test_log_weights(vae)
for k in (1, 5, 50, 500):
    groups = weights.reshape(500 // k, k, -1)
    print(f"K = {k:3d}   {float(kl.importance_weighted_bound(groups, axis=1).mean()):.2f} nats an image")

# %% [markdown]
# The last line is what test results are reported by. The step from K = 1 to 500 is what the encoder misses:
# the average KL from q(z|x) to the true posterior of z, about.
#
# ## Reconstructions and samples


# %%
def show(axes, rows, columns, title):
    tiles = np.asarray(rows).reshape(-1, columns, 8, 8)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.5)
    axes.imshow(np.concatenate(np.concatenate(tiles, axis=1), axis=1), cmap="gray_r", vmin=0, vmax=1)
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
again = jax.nn.sigmoid(vae.decoder(vae.encode(test[:12])[0]))
show(left, jnp.concatenate([images[:12], test[:12], again]), 12, "test images, binarized, reconstructed")
z = jax.random.normal(jax.random.key(2), (36, 16))
show(right, jax.nn.sigmoid(vae.decoder(z)), 12, "decoded draws of the prior")

# %% [markdown]
# ## Which latents does it use?
#
# A latent whose q(z|x) is the prior for every image costs no KL and says nothing: it has *collapsed*. `kl.active_units`
# finds the others, those whose posterior mean varies over the data. Which survive depends on how the KL is paid for:
#
# - **free bits**: `kl.free_bits` takes so many nats a latent for free, so that none is worth giving up;
# - **schedules**: `kl.schedules.linear`, `cyclical` and `sigmoid` are functions of the step, here for the KL's weight;
# - a **weight** of 2 instead of 1 (a β-VAE) makes the model give up more of them.


# %%
def weighted(schedule):
    def loss(model, x, key, step):
        mean, log_scale = model.encode(x)
        fit = jnp.mean(model.log_likelihood(x, draw(key, mean, log_scale, 1)))
        return schedule(step) * jnp.mean(jnp.sum(kl.normal(mean, log_scale), axis=-1)) - fit

    return loss


def free_bits_loss(model, x, key, step):
    mean, log_scale = model.encode(x)
    fit = jnp.mean(model.log_likelihood(x, draw(key, mean, log_scale, 1)))
    return jnp.sum(kl.free_bits(kl.normal(mean, log_scale), 0.25, order=kl.batch_then_clip)) - fit


models = {
    "ELBO": vae,
    "warm-up": train_model(weighted(kl.schedules.linear(600))),
    "free bits": train_model(free_bits_loss),
    "KL weighted by 2": train_model(weighted(lambda step: 2.0)),
}

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name, model in models.items():
    mean, log_scale = model.encode(test)
    each = np.sort(np.asarray(kl.normal(mean, log_scale).mean(axis=0)))[::-1]
    active = int(kl.active_units(mean).sum())
    bound = float(kl.importance_weighted_bound(test_log_weights(model)).mean())
    print(f"{name:18s} {active:2d} of 16 active, KL {each.sum():5.2f} nats, test bound {bound:.2f}")
    axes.plot(range(1, 17), each, marker=".", label=name)
axes.set(xlabel="latent, by its KL", ylabel="KL to N(0, 1), nats")
_ = axes.legend()

# %% [markdown]
# More active units are not a better model: compare the bounds, not the counts.
#
# ## Importance weights in training
#
# The tighter bound can be trained on as well (an importance-weighted autoencoder). The encoder then need not be right
# everywhere: with K draws it is enough that some of them are good. Its plain gradient, though, gets noisier to the
# encoder as K grows. `gradient=kl.doubly_reparameterized` mends that, for the encoder alone: the decoder is held there,
# and gets a bound of its own in which the draws are held.


# %%
def importance_weighted_loss(model, x, key, step):
    mean, log_scale = model.encode(x)
    z = draw(key, mean, log_scale, 20)
    return -jnp.mean(kl.importance_weighted_bound(log_weights(model, x, z, mean, log_scale)))


def doubly_reparameterized_loss(model, x, key, step):
    stop = jax.lax.stop_gradient
    mean, log_scale = model.encode(x)
    z = draw(key, mean, log_scale, 20)
    graph, params = nnx.split(model)
    held = nnx.merge(graph, stop(params))
    to_encoder = kl.importance_weighted_bound(
        log_weights(held, x, z, stop(mean), stop(log_scale)), gradient=kl.doubly_reparameterized
    )
    to_decoder = kl.importance_weighted_bound(log_weights(model, x, stop(z), stop(mean), stop(log_scale)))
    return -jnp.mean(to_encoder + to_decoder - stop(to_decoder))


def encoder_gradients(loss, model, num=30):
    graph, params = nnx.split(model)

    @jax.jit
    def one(key):
        gradient = jax.grad(lambda params: loss(nnx.merge(graph, params), test[:100], key, 0))(params)
        return jnp.ravel(gradient["encoder"]["layers"][2]["kernel"][...])

    return jnp.stack([one(key) for key in jax.random.split(jax.random.key(3), num)])


for loss in (importance_weighted_loss, doubly_reparameterized_loss):
    found = encoder_gradients(loss, vae)
    signal, noise = jnp.linalg.norm(found.mean(axis=0)), jnp.sqrt(found.var(axis=0, ddof=1).sum())
    print(f"{loss.__name__:28s} noise / signal of the encoder's gradient, K = 20: {noise / signal:.2f}")

# %% [markdown]
# ## The plane of two latents
#
# With two latents the code can be looked at.

# %%
flat = train_model(elbo_loss, latents=2)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
shown = left.scatter(*np.asarray(flat.encode(test)[0]).T, c=test_labels, cmap="tab10", s=8)
figure.colorbar(shown, ax=left, ticks=range(10), label="digit")
left.set(xlabel="z₁", ylabel="z₂", title="means of q(z|x)")
places = norm.ppf((jnp.arange(13) + 0.5) / 13)
z = jnp.stack(jnp.meshgrid(places, places[::-1]), axis=-1).reshape(-1, 2)
show(right, jax.nn.sigmoid(flat.decoder(z)), 13, "decoded at equal shares of the prior")

# %% [markdown]
# ## Ten seeds
#
# One run of each proves little: seeds differ by a tenth of a nat. This is what `experiments/vae/run.py` found, held-out
# images, K = 500, ± the standard error over ten seeds.

# %%
results = json.loads((Path("..") / "experiments" / "vae" / "results.json").read_text())
for name, row in results["arms"].items():
    above = results["above k = 1"].get(name)
    beside = f"  {above['mean']:+.2f} ± {above['standard_error']:.2f} beside k = 1" if above else ""
    print(f"{row['title']:32s} {row['bound']['mean']:.2f} ± {row['bound']['standard_error']:.2f}{beside}")

# %% [markdown]
# ## What to take away
#
# - The KL of a normal encoder is a closed form: `kl.normal(mean, log_scale)`, one value a latent, and everything else
#   (sum, schedule, free bits, which units are active) is made of that array.
# - Judge by `kl.importance_weighted_bound` with many draws on held-out data, not by the ELBO: it says what the decoder
#   is worth, while the ELBO also charges for the encoder.
# - Training on the tighter bound costs K times the decoder. For the encoder's gradient use
#   `kl.doubly_reparameterized`.
