# %% [markdown]
# # Distillation: which KL, on whose samples
#
# A large model (the teacher, $p$) is to be replaced by a small one (the student, $q$) that cannot represent all that
# the teacher does. What the student gives up depends on the direction of the KL that is minimized:
#
# $$ \text{forward: } KL(p\|q) = \sum_k p_k \log\frac{p_k}{q_k} \qquad
#    \text{reverse: } KL(q\|p) = \sum_k q_k \log\frac{q_k}{p_k} $$
#
# Forward KL is large where $p$ has mass and $q$ has none: the student must *cover*. Reverse KL is large where $q$ has
# mass and $p$ has none: the student must be *sharp*, and may leave things out. Here both words become numbers.

# %%
import functools
import itertools
import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from vi_kit import kl

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False})


@functools.partial(jax.jit, static_argnames=("loss", "num_steps"))
def minimize(loss, params, key, *, num_steps, rate):
    """Adam on loss(params, key), all steps in one program."""
    optimizer = optax.chain(optax.scale_by_adam(), optax.scale(-rate))

    def step(carry, i):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, jax.random.fold_in(key, i))
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(num_steps))
    return params, losses


# %% [markdown]
# ## One distribution
#
# The teacher has two humps over 60 classes. The student's logits are a parabola, so it has one hump: capacity binds.
# We measure what is **missed** (the share of the teacher's mass where the student gives less than a tenth of it) and
# what is **spilled** (the share of the student's mass where the teacher gives less than a tenth of it).

# %%
x = jnp.linspace(-3, 3, 60)
teacher = jnp.logaddexp(jnp.log(0.6) - 0.5 * ((x + 1.3) / 0.35) ** 2, jnp.log(0.4) - 0.5 * ((x - 1.3) / 0.35) ** 2)


def student(params):
    mean, log_scale = params
    return -0.5 * ((x - mean) * jnp.exp(-log_scale)) ** 2


def missed(p_logits, q_logits):
    p, q = jax.nn.softmax(p_logits), jax.nn.softmax(q_logits)
    return jnp.sum(jnp.where(q < p / 10, p, 0.0), axis=-1)


def against_teacher(params, key, divergence):
    return kl.distillation_loss(student(params), teacher, divergence=divergence)


divergences = {
    "forward": kl.forward,
    "Jensen–Shannon, β = 0.5": kl.jensen_shannon,
    "skew, α = 0.1": kl.skew,
    "reverse": kl.reverse,
}

fig, axes = plt.subplots(1, 4, figsize=(12, 2.7), sharey=True, layout="constrained")
print(f"{'':24} KL(p‖q)  KL(q‖p)  missed  spilled  entropy (teacher: {kl.entropy(teacher):.2f})")
for ax, (name, divergence) in zip(axes, divergences.items(), strict=True):
    loss = functools.partial(against_teacher, divergence=divergence)
    found, _ = minimize(loss, (jnp.array(-1.0), jnp.array(-1.0)), jax.random.key(0), num_steps=800, rate=0.03)
    q = student(found)
    print(
        f"{name:24} {kl.forward(teacher, q):7.3f}  {kl.reverse(teacher, q):7.3f}  {missed(teacher, q):6.3f}"
        f"  {missed(q, teacher):7.3f}  {kl.entropy(q):7.2f}"
    )
    ax.fill_between(x, jax.nn.softmax(teacher), color="0.85", label="teacher")
    ax.plot(x, jax.nn.softmax(q), color="C0" if name == "forward" else "C3", label="student")
    ax.set_title(name)
axes[0].legend()
plt.show()

# %% [markdown]
# Forward KL puts much of the student where the teacher has nothing, to miss nothing. Reverse KL stays with the hump
# that it began at, spills nothing, and misses the other one. Jensen–Shannon and skew KL are bounded, so a hump far away
# pulls hardly at all: from this narrow start they stay too. From a wide one, `(jnp.array(-0.3), jnp.array(0.0))`, all
# four remain over both humps, reverse KL too: that is a worse local minimum of it. A direction says what is penalized,
# not which minimum is found.
#
# `distillation_loss(student_logits, teacher_logits)` is a loss with roles: it stops gradients to the teacher,
# multiplies by T² where there is a temperature, and takes labels as well. The divergences themselves, `kl.forward(p,
# q)`, give one number a row.

# %% [markdown]
# ## A classifier
#
# Digits with noise: a teacher with 128 hidden units, a student with 3. The student sees no label at all.

# %%
digits = load_digits()
images, labels = jnp.asarray(digits.data / 16.0, jnp.float32), jnp.asarray(digits.target)
order = np.random.default_rng(0).permutation(len(images))
train_rows, test_rows = order[:1400], order[1400:]
NOISE = 0.4


class Classifier(eqx.Module):
    body: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key, width):
        first, second = jax.random.split(key)
        self.body, self.head = eqx.nn.Linear(64, width, key=first), eqx.nn.Linear(width, 10, key=second)

    def hidden(self, images):
        return jax.nn.tanh(jax.vmap(self.body)(images))

    def logits(self, images):
        return jax.vmap(self.head)(self.hidden(images))


def batch(key):
    first, second = jax.random.split(key)
    rows = jnp.asarray(train_rows)[jax.random.randint(first, (64,), 0, len(train_rows))]
    return images[rows] + NOISE * jax.random.normal(second, (64, 64)), labels[rows]


def label_loss(model, key):
    noisy, correct = batch(key)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(model.logits(noisy), correct))


big, _ = minimize(label_loss, Classifier(jax.random.key(1), 128), jax.random.key(2), num_steps=800, rate=0.003)


def taught(model, key, divergence):
    noisy, _ = batch(key)
    return kl.distillation_loss(model.logits(noisy), big.logits(noisy), divergence=divergence)


test_images = images[test_rows] + NOISE * jax.random.normal(jax.random.key(3), (len(test_rows), 64))
p = big.logits(test_images)


def describe(name, q):
    right = jnp.mean(jnp.argmax(q, -1) == labels[test_rows])
    numbers = kl.forward(p, q), kl.reverse(p, q), kl.entropy(q), missed(p, q), missed(q, p)
    print(f"{name:10} {right:8.3f} " + " ".join(f"{jnp.mean(n):8.3f}" for n in numbers))


print(f"{'':10} accuracy  KL(p‖q)  KL(q‖p)  entropy   missed  spilled")
describe("teacher", p)
small = {}
for name in ("forward", "reverse"):
    loss = functools.partial(taught, divergence=divergences[name])
    small[name], _ = minimize(loss, Classifier(jax.random.key(4), 3), jax.random.key(5), num_steps=1500, rate=0.03)
    describe(name, small[name].logits(test_images))

# %% [markdown]
# Both are less certain than their teacher: three units do not let them be. Of the two, the one that learned by reverse
# KL is the surer, spills less, and misses about three times as much.
#
# ### Without the logits
#
# With a vocabulary of 100,000 the logits of both models are what fills the memory. `kl.fused_linear` takes hidden
# states and weights and goes through the classes in tiles: the same loss, the same gradients.

# %%
noisy, _ = batch(jax.random.key(6))


def dense(model):
    return kl.distillation_loss(model.logits(noisy), big.logits(noisy))


def fused(model):
    sides = (big.hidden(noisy), big.head.weight, model.hidden(noisy), model.head.weight)
    return kl.reduce(kl.fused_linear(*sides, p_bias=big.head.bias, q_bias=model.head.bias))


model = small["forward"]
(first, one), (second, other) = (jax.jit(jax.value_and_grad(f))(model) for f in (dense, fused))
difference = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), one, other)))
largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(one))
print(f"loss {first:.6f} and {second:.6f}; gradients differ by {difference / largest:.0e} of the largest entry")

# %% [markdown]
# ## Sequences: on whose samples?
#
# For text, $q(x) = \prod_t q(x_t \mid x_{<t})$, and the KL of whole sequences is an expectation over sequences from
# the first argument:
#
# $$ KL(q\|p) = E_{x \sim q} \sum_t KL\big(q(\cdot \mid x_{<t}) \,\|\, p(\cdot \mid x_{<t})\big) $$
#
# So reverse KL needs sequences **written by the student** (on-policy), forward KL sequences written by the teacher,
# or text (off-policy). And where the student writes, its parameters decide not only each token's KL but also which
# prefixes come about: without the sampled `tokens=` the gradient lacks that part. A small Markov chain shows it,
# because there all 81 sequences can be summed:

# %%
LENGTH, STATES = 4, 3
student_table, teacher_table = 1.5 * jax.random.normal(jax.random.key(8), (2, STATES + 1, STATES))
every = jnp.array(list(itertools.product(range(STATES), repeat=LENGTH)))


def logits(table, x):
    before = jnp.concatenate([jnp.full_like(x[:, :1], STATES), x[:, :-1]], axis=1)
    return table[before]


def log_prob(table, x):
    return jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(logits(table, x)), x[..., None], -1), axis=(1, 2))


def exact(table):
    log_q = log_prob(table, every)
    return jnp.sum(jnp.exp(log_q) * (log_q - log_prob(teacher_table, every)))


def sampled(table, x, **how):
    return jnp.mean(kl.sequence(logits(table, x), logits(teacher_table, x), **how))


draws = jax.random.choice(jax.random.key(9), len(every), (200, 100), p=jnp.exp(log_prob(student_table, every)))
truth = jax.grad(exact)(student_table)
estimate = sampled(student_table, every[draws.ravel()])
print(f"KL: exact {exact(student_table):.4f}, from 20,000 sequences {estimate:.4f}")


def whole(table, x):
    return sampled(table, x, tokens=x, baseline_axis=0)


for name, loss in {"with tokens": whole, "without": sampled}.items():
    gradients = jax.lax.map(lambda d, f=loss: jax.grad(f)(student_table, every[d]), draws)
    mean, error = gradients.mean(0), gradients.std(0, ddof=1) / np.sqrt(len(gradients))
    off, noise = (jnp.linalg.norm(a) / jnp.linalg.norm(truth) for a in (mean - truth, error))
    print(f"{name:11}: the mean gradient is off by {off:5.1%} of the exact one (chance alone: about {noise:.1%})")

# %% [markdown]
# ## In full
#
# `experiments/distillation` does all of this with several seeds and chosen learning rates, for digits and for a
# character model on Python's own documentation. Its results:

# %%
folder = Path("../experiments/distillation")
sys.path[:0] = [str(folder), str(folder.parent)]
import figure

results = json.loads((folder / "results.json").read_text())
figure.plane(results["digits"])
plt.show()

# %%
figure.curves(results["text"], results["settings"]["sequences"])
plt.show()
show = (("text", "cross-entropy"), ("teacher writes", "KL(teacher‖student)"), ("student writes", "KL(student‖teacher)"))
print(f"{'nats a character':42} text alone  forward  reverse")
for name, row in results["text"]["methods"].items():
    print(f"{name:42} " + " ".join(f"{np.mean(row['test'][place][what]):9.3f}" for place, what in show))

# %% [markdown]
# ## What to take away
#
# - `kl.distillation_loss(student_logits, teacher_logits, divergence=…)` for losses, `kl.forward`, `kl.reverse`,
#   `kl.jensen_shannon`, `kl.skew` for numbers; `kl.fused_linear` where the vocabulary is large.
# - Where capacity binds, the direction decides what is lost: forward KL spills, reverse KL misses. Measure both.
# - Reverse KL of sequences is an expectation over what the *student* writes; give `kl.sequence` the sampled tokens to
#   have its whole gradient. With it the small students above have by far the lowest KL(q‖p) and miss half of their
#   teacher; one was looked at, and wrote little but quotation marks. Without it they stay near text. A loss that is
#   minimized well is not yet the right loss.
