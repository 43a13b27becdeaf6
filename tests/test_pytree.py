"""pytree: structures tell classes apart, arrays are leaves, static fields are not."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import vi_kit as vk
from vi_kit._pytree import pytree


def classes(decorate):
    @decorate
    @dataclasses.dataclass(frozen=True)
    class First:
        a: jax.Array
        b: int = dataclasses.field(default=0, metadata={"static": True})

    @decorate
    @dataclasses.dataclass(frozen=True)
    class Second:
        a: jax.Array
        b: int = dataclasses.field(default=0, metadata={"static": True})

    return First, Second


def test_structures_of_two_classes_differ():
    """Where they compare equal, `jit` takes another class's program whenever the hashes happen to share a bucket."""
    first, second = classes(pytree)
    assert jax.tree.structure(first(1.0)) == jax.tree.structure(first(2.0))
    assert jax.tree.structure(first(1.0)) != jax.tree.structure(second(1.0))
    assert jax.tree.structure(first(1.0, 1)) != jax.tree.structure(first(1.0, 2))
    assert jax.tree.structure(vk.support.real) != jax.tree.structure(vk.support.positive)


def test_round_trip():
    first, _ = classes(pytree)
    paths = jax.tree_util.tree_flatten_with_path(first(jnp.ones(2), 3))[0]
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [".a"]
    mapped = jax.tree.map(lambda x: 2 * x, first(jnp.ones(2), 3))
    assert mapped.b == 3
    assert mapped.a.tolist() == [2.0, 2.0]
    assert jax.vmap(lambda x: x.a * x.b)(first(jnp.ones(2), 3)).tolist() == [3.0, 3.0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        mapped.b = 4
