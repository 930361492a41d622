"""JAX: the equation under `jax.jit`, state donated; noise by its default generator."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp

from bench.peers import sound
from bench.peers.equations import EQUATIONS, NOTHING, data, functional, table


def make(column, op, arguments, shape):
    """See `bench.peers`. column: "jax"."""
    if op.name not in EQUATIONS:
        return {}
    kind = "threefry2x32" if sound.draws(op, arguments) else None
    x = {k: jnp.array(v) for k, v in data(op, arguments, shape).items()}
    fold, f = table(op, arguments, shape), EQUATIONS[op.name].f
    key = kind and jax.random.key(1, impl=kind)

    def compute(c, key, *x):
        xp = SimpleNamespace(
            clip=jnp.clip, sqrt=jnp.sqrt, exp=jnp.exp, mean=jnp.mean, softplus=jax.nn.softplus, sigmoid=jax.nn.sigmoid,
            relu=jax.nn.relu, ones_like=jnp.ones_like, normal=lambda x: jax.random.normal(key, x.shape, x.dtype),
        )  # fmt: skip
        return f(functional(xp), c, arguments, NOTHING, *x)

    compiled = jax.jit(compute, donate_argnums=tuple(2 + list(x).index(name) for name in op.in_place))

    def run():
        result = jax.block_until_ready(compiled(fold()[..., None] if fold else None, key, *x.values()))
        x.update(zip(op.in_place, result if isinstance(result, tuple) else (result,)))
        return result

    return {kind or "jit": run}
