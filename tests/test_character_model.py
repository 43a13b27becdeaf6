"""The character model that two experiments share."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "experiments"))
import character_model as characters

SETTINGS = characters.Settings(width=8, embedding=4)


@pytest.fixture
def model():
    return characters.Model(jax.random.key(7), SETTINGS)


def test_the_text_is_there_and_in_one_part_only():
    text = characters.load_text()
    sizes = [len(part) for part in text]
    assert 250_000 < sum(sizes) < 600_000  # another Python has another edition of the text
    assert 0.75 < sizes[0] / sum(sizes) < 0.85
    again = characters.load_text()
    assert all(np.array_equal(a, b) for a, b in zip(text, again, strict=True))
    train, test = characters.decode(text.train), characters.decode(text.test)
    assert "statement" in train
    shared = [test[i : i + 200] in train for i in range(0, len(test) - 200, 200)]
    assert np.mean(shared) < 0.01


def test_characters_come_back():
    assert characters.decode(characters.encode("Assert\n  {statements}: a2b")) == "assert statements a b"
    assert characters.decode(np.arange(characters.NUM_CHARACTERS)) == characters.ALPHABET


def test_windows():
    assert characters.windows(np.arange(7), 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(SystemExit, match="length: expected at most 7"):
        characters.windows(np.arange(7), 8)
    drawn = np.asarray(characters.random_windows(jax.random.key(0), jnp.arange(7), 200, 3))
    assert {tuple(row) for row in drawn.tolist()} == {(i, i + 1, i + 2) for i in range(5)}


def test_logits_see_only_what_came_before(model, key):
    tokens = jax.random.randint(key, (9,), 0, characters.NUM_CHARACTERS)
    other = tokens.at[4].set((tokens[4] + 1) % characters.NUM_CHARACTERS)
    differ = np.any(model.logits(tokens) != model.logits(other), axis=1)
    assert differ.tolist() == [False] * 5 + [True] * 4


def test_a_sample_has_the_probabilities_of_the_logits(model, key):
    prompt = jnp.asarray(characters.encode("the class "))
    draw = jax.jit(lambda key, prompt: model.sample(key, 12, prompt))
    for given in (prompt, prompt[:0]):
        tokens, log_probs = draw(jax.random.clone(key), given)
        logits = model.logits(jnp.concatenate([given, tokens]))[len(given) :]
        read = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, None], axis=1)[:, 0]
        np.testing.assert_allclose(log_probs, read, rtol=1e-5)
    np.testing.assert_array_equal(model.sample(jax.random.clone(key), 12)[0], draw(key, prompt[:0])[0])


def test_samples_are_drawn_as_often_as_the_logits_say(model, key):
    keys = jax.random.split(key, 4_000)
    sharp = jax.tree.map(lambda leaf: 3 * leaf, model)
    first = jax.jit(jax.vmap(lambda k: sharp.sample(k, 2)[0][0]))(keys)
    probs = np.asarray(jax.nn.softmax(sharp.logits(jnp.zeros(2, int))[0]), float)
    counts = np.bincount(first, minlength=len(probs))
    error = np.sqrt(len(keys) * probs * (1 - probs))
    assert np.all(np.abs(counts - len(keys) * probs) < 5.7 * error + 5)  # Poisson counts of rare characters
    assert not np.all(np.abs(counts - len(keys) / len(probs)) < 5.7 * error + 5)


def test_training_learns_a_rule(model, key):
    text = jnp.tile(jnp.arange(4), 100)
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
        trained, losses = characters.train(key, model, text, num_steps=150, num_rows=8, length=12, learning_rate=0.03)
    assert losses.shape == (150,)
    per_place = characters.cross_entropy(trained, text[None, :8])[0]
    assert losses[0] > 3
    assert float(per_place[1:].max()) < 0.1  # the first character cannot be known: log 4
    assert abs(float(losses[-1]) - np.log(4) / 12) < 0.05
