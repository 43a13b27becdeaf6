"""Text: a character model with 128 units teaches students with very few, on text or on what the students write."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import character_model as characters
import jax
import jax.numpy as jnp
import numpy as np
import workbench
from jax import Array
from measures import compare
from training import train

from vi_kit import kl


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the part with text depends on."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    teacher_width: int = 128
    teacher_steps: int = 1_500
    student_width: int = 16
    rows: int = 8
    length: int = 32
    start_steps: int = 400
    start_rate: float = 0.01
    num_steps: int = 400
    every: int = 80
    rates: tuple[float, ...] = (0.003, 0.01)
    num_judged: int = 128
    methods: tuple[str, ...] = ()  # all of them


def written(model: characters.Model, key: Array, num: int, length: int) -> Array:
    """Return what a model writes, (num, length)."""
    return jax.vmap(lambda key: model.sample(key, length)[0])(jax.random.split(key, num))


def text_alone(student: characters.Model, context: dict[str, Any], key: Array, settings: Settings) -> Array:
    """Cross-entropy of the text: KL from the data."""
    rows = characters.random_windows(key, context["text"], settings.rows, settings.length)
    return jnp.mean(characters.cross_entropy(student, rows))


def along(model: characters.Model, rows: Array) -> Array:
    """Return a model's logits along rows of characters."""
    return jax.vmap(model.logits)(rows)


def both(student: characters.Model, context: dict[str, Any], rows: Array) -> tuple[Array, Array]:
    """Return the teacher's and the student's logits along rows of characters."""
    return along(context["teacher"], rows), along(student, rows)


def forward_on_text(student: characters.Model, context: dict[str, Any], key: Array, settings: Settings) -> Array:
    """Forward KL of each character, given text: off-policy."""
    rows = characters.random_windows(key, context["text"], settings.rows, settings.length)
    teacher, own = both(student, context, rows)
    return jnp.mean(kl.sequence(teacher, own)) / settings.length


def forward(student: characters.Model, context: dict[str, Any], key: Array, settings: Settings) -> Array:
    """Forward KL of whole sequences, along what the teacher writes: off-policy, unbiased."""
    teacher, own = both(student, context, written(context["teacher"], key, settings.rows, settings.length))
    return jnp.mean(kl.sequence(teacher, own)) / settings.length


def reverse_on_text(student: characters.Model, context: dict[str, Any], key: Array, settings: Settings) -> Array:
    """Reverse KL of each character, given text: off-policy."""
    rows = characters.random_windows(key, context["text"], settings.rows, settings.length)
    teacher, own = both(student, context, rows)
    return jnp.mean(kl.sequence(own, teacher)) / settings.length


def reverse(student: characters.Model, context: dict[str, Any], key: Array, settings: Settings) -> Array:
    """Reverse KL of whole sequences, along what the student writes: on-policy, with the unbiased gradient."""
    rows = written(student, key, settings.rows, settings.length)
    teacher, own = both(student, context, rows)
    return jnp.mean(kl.sequence(own, teacher, tokens=rows, baseline_axis=0)) / settings.length


def reverse_partial(student: characters.Model, context: dict[str, Any], key: Array, settings: Settings) -> Array:
    """Leave out of the gradient that a character decides what comes later."""
    teacher, own = both(student, context, written(student, key, settings.rows, settings.length))
    return jnp.mean(kl.sequence(own, teacher)) / settings.length


# What is minimized, and by which number on validation data its learning rate is chosen: its own objective.
METHODS = {
    "text alone": (text_alone, ("text", "cross-entropy")),
    "forward, on text": (forward_on_text, ("text", "KL(teacher‖student)")),
    "forward, teacher writes": (forward, ("teacher writes", "KL(teacher‖student)")),
    "reverse, on text": (reverse_on_text, ("text", "KL(student‖teacher)")),
    "reverse, student writes": (reverse, ("student writes", "KL(student‖teacher)")),
    "reverse, student writes, partial gradient": (reverse_partial, ("student writes", "KL(student‖teacher)")),
}


def names(settings: Settings) -> list[str]:
    """Return the ways of learning that are compared."""
    return [name for name in METHODS if name in (settings.methods or METHODS)]


def losses(names: list[str], settings: Settings) -> tuple[Callable[..., Array], ...]:
    """Return what training takes."""
    return tuple(
        lambda student, context, key, loss=METHODS[name][0]: loss(student, context, key, settings) for name in names
    )


PLACES = ("text", "teacher writes", "student writes")


def judge(student: characters.Model, context: dict[str, Any], key: Array) -> dict[str, Any]:
    """Return the measures a character: given held-out text, what the teacher writes and what the student writes."""
    keys = []
    for _ in ("validation", "test"):
        key, own_key = jax.random.split(key)
        keys.append(own_key)

    def part(rows: dict[str, Array], key: Array) -> tuple[dict[str, Array], Array]:
        own = written(student, key, *rows["text"].shape)
        every = jnp.stack([rows["text"], rows["teacher writes"], own])
        teachers = jnp.stack(
            [rows["teacher on text"], rows["teacher on teacher writes"], along(context["teacher"], own)]
        )
        logits = jax.vmap(lambda rows: along(student, rows))(every)
        return jax.vmap(compare)(teachers, logits), jnp.mean(characters.cross_entropy(student, rows["text"]))

    # Both parts and all places have one shape, so they are one batch: a program half as long to compile.
    held_out = jax.tree.map(lambda *leaves: jnp.stack(leaves), context["validation"], context["test"])
    measures, cross_entropy = jax.vmap(part)(held_out, jnp.stack(keys))
    found: dict[str, Any] = {}
    for i, name in enumerate(("validation", "test")):
        found[name] = {place: {n: v[i, j] for n, v in measures.items()} for j, place in enumerate(PLACES)}
        found[name]["text"]["cross-entropy"] = cross_entropy[i]
    return found


def prepare(run: workbench.Run, settings: Settings) -> dict[str, Any]:
    """Return text and teacher; the teacher is trained once in a run."""
    text = characters.load_text()
    train_text = jnp.asarray(text.train)
    teacher = characters.Model(jax.random.key(100), characters.Settings(settings.teacher_width))
    found = run.restore("teacher", teacher)
    if found is None:
        found, _ = characters.train(jax.random.key(101), teacher, train_text, num_steps=settings.teacher_steps)
        run.save("teacher", found)
    context: dict[str, Any] = {"teacher": found, "text": train_text}
    logits = jax.jit(jax.vmap(found.logits))
    for part, seed in (("validation", 102), ("test", 103)):
        rows = characters.windows(getattr(text, part), settings.length)
        chosen = np.random.default_rng(seed).choice(len(rows), settings.num_judged, replace=False)
        places = {
            "text": jnp.asarray(rows[chosen]),
            "teacher writes": written(found, jax.random.key(seed), settings.num_judged, settings.length),
        }
        context[part] = places | {f"teacher on {place}": logits(rows) for place, rows in places.items()}
    return context


def start(context: dict[str, Any], settings: Settings) -> tuple[characters.Model, Any]:
    """Return students that have read the text for a while, one a seed, and how good they are."""
    keys = jax.vmap(jax.random.key)(200 + jnp.asarray(settings.seeds))
    size = characters.Settings(settings.student_width)
    students = jax.jit(jax.vmap(lambda key: characters.Model(jax.random.fold_in(key, 0), size)))(keys)
    models, found = train(
        losses(["text alone"], settings),
        judge,
        0,
        keys,
        students,
        context,
        jnp.asarray([settings.start_rate]),
        num_steps=settings.start_steps,
        every=settings.start_steps,
        context_axis=None,
    )
    return jax.tree.map(lambda leaf: leaf[0], models), jax.tree.map(
        lambda leaf: np.asarray(leaf)[0, :, -1].tolist(), found
    )


def compile_students(context: dict[str, Any], students: characters.Model, settings: Settings) -> Callable[[int], Any]:
    """Return the function of a method's number that trains its students, with every rate and seed."""
    keys = jax.vmap(jax.random.key)(300 + jnp.asarray(settings.seeds))
    arrays = keys, students, context, jnp.asarray(settings.rates)
    sizes = {"num_steps": settings.num_steps, "every": settings.every, "context_axis": None}
    compiled = train.lower(losses(names(settings), settings), judge, 0, *arrays, **sizes).compile()
    return lambda choice: jax.block_until_ready(compiled(choice, *arrays))


def run_method(students: Callable[[int], Any], name: str, settings: Settings) -> dict[str, Any]:
    """Train students in one way; choose the rate by what the method minimizes, on validation data."""
    began = time.process_time()
    models, found = students(names(settings).index(name))
    seconds = time.process_time() - began
    found = jax.tree.map(np.asarray, found)  # (rates, seeds, judgments)
    place, number = METHODS[name][1]
    rate = int(np.argmin(found["validation"][place][number][:, :, -1].mean(axis=1)))
    first = jax.tree.map(lambda leaf: leaf[rate, 0], models)
    sample = jax.jit(lambda key: first.sample(key, 120)[0])(jax.random.key(7))
    return {
        "rate": settings.rates[rate],
        "test": jax.tree.map(lambda leaf: leaf[rate, :, -1].tolist(), found["test"]),
        "curve": jax.tree.map(lambda leaf: leaf[rate].mean(axis=0).tolist(), found["validation"]),
        "writes": characters.decode(sample),
        "milliseconds a step of one student": 1e3
        * seconds
        / (settings.num_steps * len(settings.rates) * len(settings.seeds)),
    }
