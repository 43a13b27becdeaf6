"""Two mechanical systems with published dynamics, as pure functions of state and action.

CartPole: Barto, Sutton and Anderson, Neuronlike Adaptive Elements That Can Solve Difficult Learning Control Problems,
1983, https://doi.org/10.1109/TSMC.1983.6313077, without friction, with the constants, step and limits of Gymnasium's
CartPole-v1. Pendulum: Gymnasium's Pendulum-v1, https://gymnasium.farama.org/environments/classic_control/pendulum/.
No code of theirs is used. Energy and power are here so that the dynamics can be checked: dE/dt is the power put in.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp


class Environment(Protocol):
    """What the training needs of an environment; a state is one array."""

    num_steps: int
    discount: float
    observation_size: int

    def reset(self, key: Any) -> Any:
        """Draw the first state of an episode."""
        ...

    def step(self, state: Any, action: Any) -> tuple[Any, Any, Any]:
        """Return the next state, the reward and whether the episode has failed."""
        ...

    def observe(self, state: Any) -> Any:
        """Return what policy and critic see, of order one."""
        ...


@dataclasses.dataclass(frozen=True)
class CartPole:
    """A pole on a cart that is pushed left (0) or right (1): reward 1 a step until either has gone too far."""

    num_steps: int = 500
    discount: float = 0.99
    observation_size: int = 4

    gravity: float = 9.8
    cart_mass: float = 1.0
    pole_mass: float = 0.1
    half_length: float = 0.5
    push: float = 10.0
    seconds: float = 0.02
    farthest: float = 2.4
    steepest: float = 12 * jnp.pi / 180

    def reset(self, key: Any) -> Any:
        """Draw position, velocity, angle (0 is upright) and its velocity, all near 0."""
        return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)

    def derivative(self, state: Any, force: Any) -> Any:
        """Return how fast the state changes under a force on the cart."""
        _, velocity, angle, turning = state
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        mass, moment = self.cart_mass + self.pole_mass, self.pole_mass * self.half_length
        pushed = (force + moment * jnp.square(turning) * sine) / mass
        inertia = self.half_length * (4 / 3 - self.pole_mass * jnp.square(cosine) / mass)
        angular = (self.gravity * sine - cosine * pushed) / inertia
        return jnp.stack([velocity, pushed - moment * angular * cosine / mass, turning, angular])

    def energy(self, state: Any) -> Any:
        """Return kinetic and potential energy."""
        _, velocity, angle, turning = state
        moment = self.pole_mass * self.half_length
        kinetic = (
            (self.cart_mass + self.pole_mass) * jnp.square(velocity) / 2
            + moment * velocity * turning * jnp.cos(angle)
            + 2 / 3 * moment * self.half_length * jnp.square(turning)
        )
        return kinetic + moment * self.gravity * jnp.cos(angle)

    def power(self, state: Any, force: Any) -> Any:
        """Return what the force puts in."""
        return force * state[1]

    def step(self, state: Any, action: Any) -> tuple[Any, Any, Any]:
        """Push for one explicit Euler step."""
        state = state + self.seconds * self.derivative(state, jnp.where(action == 1, self.push, -self.push))
        failed = (jnp.abs(state[0]) > self.farthest) | (jnp.abs(state[2]) > self.steepest)
        return state, jnp.ones_like(state[0]), failed

    def observe(self, state: Any) -> Any:
        """Return the state as it is."""
        return state


@dataclasses.dataclass(frozen=True)
class Pendulum:
    """A pendulum to be swung up with a torque too weak to lift it at once; it never fails, only the time ends."""

    num_steps: int = 200
    discount: float = 0.95
    observation_size: int = 3

    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0
    strongest: float = 2.0
    fastest: float = 8.0
    seconds: float = 0.05

    def reset(self, key: Any) -> Any:
        """Draw any angle (0 is upright) and a slow turn."""
        first, second = jax.random.split(key)
        angle = jax.random.uniform(first, minval=-jnp.pi, maxval=jnp.pi)
        return jnp.stack([angle, jax.random.uniform(second, minval=-1.0, maxval=1.0)])

    def derivative(self, state: Any, torque: Any) -> Any:
        """Return how fast the state changes under a torque."""
        angle, turning = state
        fall = 3 * self.gravity / (2 * self.length) * jnp.sin(angle)
        return jnp.stack([turning, fall + 3 / (self.mass * self.length**2) * torque])

    def energy(self, state: Any) -> Any:
        """Return kinetic and potential energy of a rod that turns about its end."""
        angle, turning = state
        kinetic = self.mass * self.length**2 * jnp.square(turning) / 6
        return kinetic + self.mass * self.gravity * self.length / 2 * jnp.cos(angle)

    def power(self, state: Any, torque: Any) -> Any:
        """Return what the torque puts in."""
        return torque * state[1]

    def step(self, state: Any, action: Any) -> tuple[Any, Any, Any]:
        """Turn for one semi-implicit Euler step; actions of length 1, in units of the strongest torque, cut there."""
        torque = self.strongest * jnp.clip(action[0], -1.0, 1.0)
        angle, turning = state
        upright = jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi
        reward = -(jnp.square(upright) + 0.1 * jnp.square(turning) + 0.001 * jnp.square(torque))
        changed = turning + self.seconds * self.derivative(state, torque)[1]
        changed = jnp.clip(changed, -self.fastest, self.fastest)
        return jnp.stack([angle + self.seconds * changed, changed]), reward, jnp.zeros((), bool)

    def observe(self, state: Any) -> Any:
        """Return cosine and sine of the angle, and its velocity as part of the fastest."""
        return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1] / self.fastest])
