"""How a student's distributions differ from a teacher's: both directions, and what is missed and spilled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from vi_kit import kl

FACTOR = 10.0


def missed(p_logits: Array, q_logits: Array) -> Array:
    """Return the share of p's mass on classes to which q gives less than a tenth of it, one value a row."""
    p, q = jax.nn.softmax(p_logits), jax.nn.softmax(q_logits)
    return jnp.sum(jnp.where(q < p / FACTOR, p, 0.0), axis=-1)


def compare(teacher: Array, student: Array) -> dict[str, Array]:
    """Return means over rows: KL in nats both ways, entropies, and the two shares.

    Missed: the teacher's mass that the student (nearly) lacks, low if it covers. Spilled: the student's mass that the
    teacher (nearly) lacks, low if it is sharp where it should be.
    """
    values = {
        "KL(teacher‖student)": kl.categorical(teacher, student),
        "KL(student‖teacher)": kl.categorical(student, teacher),
        "entropy": kl.entropy(student),
        "teacher's entropy": kl.entropy(teacher),
        "missed": missed(teacher, student),
        "spilled": missed(student, teacher),
    }
    return {name: jnp.mean(value) for name, value in values.items()}
