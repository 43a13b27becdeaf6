"""Ten classes: noisy digits, a teacher with 128 hidden units, students with a hidden layer of very few."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import workbench
from jax import Array
from measures import compare
from training import train

from vi_kit import kl


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the part with digits depends on."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    test_seed: int = 0  # the deal whose test rows are reported on, with every seed
    noise: float = 0.4
    teacher_width: int = 128
    student_width: int = 3
    num_labels: int = 100
    batch: int = 64
    teacher_steps: int = 1_000
    teacher_rate: float = 0.003
    num_steps: int = 1_500
    every: int = 100
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    methods: tuple[str, ...] = ()  # all of them


class Classifier(eqx.Module):
    """A hidden layer and the layer that makes logits of it."""

    body: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key: Array, width: int) -> None:
        """Draw the parameters."""
        first, second = jax.random.split(key)
        self.body = eqx.nn.Linear(64, width, key=first)
        self.head = eqx.nn.Linear(width, 10, key=second)

    def hidden(self, images: Array) -> Array:
        """Return what the last layer is applied to: (rows, width) for images (rows, 8, 8)."""
        return jax.nn.tanh(jax.vmap(self.body)(images.reshape(len(images), 64)))

    def logits(self, images: Array) -> Array:
        """Return (rows, 10)."""
        return jax.vmap(self.head)(self.hidden(images))


def dense(student: Classifier, teacher: Classifier, images: Array, **how: Any) -> Array:
    """Compare logits."""
    return kl.distillation_loss(student.logits(images), teacher.logits(images), **how)


def fused(student: Classifier, teacher: Classifier, images: Array) -> Array:
    """Compare hidden states and weights, without forming the logits: forward KL."""
    return kl.reduce(
        kl.fused_linear(
            teacher.hidden(images),
            teacher.head.weight,
            student.hidden(images),
            student.head.weight,
            p_bias=teacher.head.bias,
            q_bias=student.head.bias,
        )
    )


def skew_reverse(teacher: Array, student: Array, **how: Any) -> Array:
    """Return the skew KL from the student to its mixture with the teacher."""
    return kl.skew(student, teacher, alpha=0.1, **how)


def draw(rows: dict[str, Array], key: Array, settings: Settings) -> tuple[Array, Array]:
    """Return a batch, with fresh noise on the images."""
    first, second = jax.random.split(key)
    chosen = jax.random.randint(first, (settings.batch,), 0, len(rows["label"]))
    images = rows["image"][chosen]
    return images + settings.noise * jax.random.normal(second, images.shape), rows["label"][chosen]


def labels_alone(rows: str, settings: Settings) -> Callable[..., Array]:
    """Return the cross-entropy of labels, which is KL from the labels."""

    def loss(student: Classifier, context: dict[str, Any], key: Array) -> Array:
        images, labels = draw(context[rows], key, settings)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(student.logits(images), labels))

    return loss


def distilled(compare: Callable[..., Array], settings: Settings, label_weight: float = 0.0) -> Callable[..., Array]:
    """Return the loss against the teacher on all images, with the few labels if they have a weight."""
    with_labels = labels_alone("few", settings)

    def loss(student: Classifier, context: dict[str, Any], key: Array) -> Array:
        first, second = jax.random.split(key)
        images, _ = draw(context["all"], first, settings)
        soft = compare(student, context["teacher"], images)
        return soft + label_weight * with_labels(student, context, second) if label_weight else soft

    return loss


def methods(settings: Settings) -> dict[str, Callable[..., Array]]:
    """Return the losses that are compared."""
    few = f"{settings.num_labels} labels"
    js = partial(kl.jensen_shannon, normalize=True)
    compared = {
        "forward": dense,
        "forward, T = 2": partial(dense, temperature=2.0),
        "forward, T = 4": partial(dense, temperature=4.0),
        "skew 0.1": partial(dense, divergence=kl.skew),
        "Jensen–Shannon 0.1": partial(dense, divergence=partial(js, beta=0.1)),
        "Jensen–Shannon 0.5": partial(dense, divergence=js),
        "Jensen–Shannon 0.9": partial(dense, divergence=partial(js, beta=0.9)),
        "skew reverse 0.1": partial(dense, divergence=skew_reverse),
        "reverse": partial(dense, divergence=kl.reverse),
        "reverse, T = 2": partial(dense, divergence=kl.reverse, temperature=2.0),
        "forward, fused": fused,
    }
    found = {few: labels_alone("few", settings), "all labels": labels_alone("all", settings)}
    found |= {name: distilled(how, settings) for name, how in compared.items()}
    found |= {f"forward and {few}": distilled(dense, settings, label_weight=1.0)}
    return {name: loss for name, loss in found.items() if name in (settings.methods or found)}


def judge(student: Classifier, context: dict[str, Any], key: Array) -> dict[str, dict[str, Array]]:
    """Return accuracy and measures on validation and test images, whose noise is always the same."""
    del key
    found = {}
    for part in ("validation", "test"):
        rows, logits = context[part], student.logits(context[part]["image"])
        found[part] = {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == rows["label"])}
        found[part] |= compare(context["teacher"].logits(rows["image"]), logits)
    return found


def load(settings: Settings) -> dict[str, Any]:
    """Return the data of every seed: the same test rows for all, the others dealt anew to train and to choose with.

    No row that anything is chosen with, in any seed, is a test row. Validation and test images have their noise.
    """
    fixed = workbench.digits(seed=settings.test_seed)
    rest = jax.tree.map(lambda *parts: np.concatenate(parts), fixed.train, fixed.validation)

    def noisy(rows: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        noise = settings.noise * random.standard_normal(rows["image"].shape, np.float32)
        return rows | {"image": rows["image"] + noise}

    test, contexts = noisy(fixed.test, np.random.default_rng(10_000)), []
    for seed in settings.seeds:
        parts, random = workbench.split(rest, seed=seed, validation=0.125, test=0.0), np.random.default_rng(seed)
        few = random.permutation(len(parts.train["label"]))[: settings.num_labels]
        context = {"all": parts.train, "few": {name: rows[few] for name, rows in parts.train.items()}}
        contexts.append(context | {"validation": noisy(parts.validation, random), "test": test})
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *contexts)


def models(seed: int, width: int, settings: Settings) -> Classifier:
    """Draw one classifier a seed."""
    keys = jax.vmap(jax.random.key)(seed + jnp.asarray(settings.seeds))
    return jax.jit(jax.vmap(lambda key: Classifier(key, width)))(keys)


def prepare(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train the teachers on all labels; return the contexts with them, and how good they are."""
    context = load(settings)
    context["teacher"] = models(
        1_000, settings.teacher_width, settings
    )  # judged against itself: only its accuracy counts
    keys = jax.vmap(jax.random.key)(2_000 + jnp.asarray(settings.seeds))
    teachers, _ = train(
        (labels_alone("all", settings),),
        lambda *_: {},
        0,
        keys,
        context["teacher"],
        context,
        jnp.asarray([settings.teacher_rate]),
        num_steps=settings.teacher_steps,
        every=settings.teacher_steps,
    )
    context["teacher"] = jax.tree.map(lambda leaf: leaf[0], teachers)
    found = jax.jit(jax.vmap(judge, in_axes=(0, 0, None)))(context["teacher"], context, None)
    return context, jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), found["test"])


def compile_students(context: dict[str, Any], settings: Settings) -> Callable[[int], Any]:
    """Return the function of a method's number that trains its students, with every rate and seed."""
    keys = jax.vmap(jax.random.key)(3_000 + jnp.asarray(settings.seeds))
    students = models(4_000, settings.student_width, settings)
    arrays = keys, students, context, jnp.asarray(settings.rates)
    losses = tuple(methods(settings).values())
    sizes = {"num_steps": settings.num_steps, "every": settings.every}
    compiled = train.lower(losses, judge, 0, *arrays, **sizes).compile()
    return lambda choice: jax.block_until_ready(compiled(choice, *arrays)[1])


def run(students: Callable[[int], Any], name: str, settings: Settings) -> dict[str, Any]:
    """Train students in one way; choose rate and stop by the mean validation accuracy over seeds."""
    began = time.process_time()
    found = jax.tree.map(np.asarray, students(list(methods(settings)).index(name)))  # (rates, seeds, judgments)
    seconds = time.process_time() - began
    score = found["validation"]["accuracy"].mean(axis=1)
    rate, stop = np.unravel_index(np.argmax(score), score.shape)
    return {
        "rate": settings.rates[rate],
        "steps": int(stop + 1) * settings.every,
        "test": {name: values[rate, :, stop].tolist() for name, values in found["test"].items()},
        "curve": {name: values[rate].mean(axis=0).tolist() for name, values in found["validation"].items()},
        "milliseconds a step of one student": 1e3 * seconds / (settings.num_steps * len(score) * len(settings.seeds)),
    }


def agreement(context: dict[str, Any], settings: Settings) -> dict[str, float]:
    """Return by how much loss and gradients through `fused_linear` differ from those through logits, at the start."""
    students = models(4_000, settings.student_width, settings)
    keys = jax.vmap(jax.random.key)(3_000 + jnp.asarray(settings.seeds))
    both = [
        jax.jit(jax.vmap(jax.value_and_grad(distilled(how, settings))))(students, context, keys)
        for how in (dense, fused)
    ]
    (loss, gradient), (fused_loss, fused_gradient) = both
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient))
    difference = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), gradient, fused_gradient)
    return {
        "loss, largest relative difference": float(jnp.max(jnp.abs(loss - fused_loss) / loss)),
        "gradient, largest difference over the largest entry": max(jax.tree.leaves(difference)) / largest,
    }
