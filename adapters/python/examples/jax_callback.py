"""bitstep's steps inside of a jitted function of JAX: a host callback has the optimizer, with its state, on the CPU.

    python examples/jax_callback.py

It returns new parameters, not updates as optax does: their sum would be rounded again, and not have the bits.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

import bitstep.numpy
import bitstep.schedules

STEPS = 100


def host_optimizer(params, name, rates, **arguments):
    """A function that steps parameters by gradients, wherever JAX runs it, once each time and in order."""
    leaves, tree = jax.tree.flatten(params)
    arrays = [np.array(x) for x in leaves]  # copies: what JAX holds does not change
    opt = bitstep.numpy.Optimizer(name, arrays, **arguments)
    steps = iter(rates)

    def on_host(grads):
        opt.lr = next(steps)
        opt.step([np.asarray(g) for g in grads])
        return [x.copy() for x in arrays]

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]

    def step(grads):
        return jax.tree.unflatten(tree, io_callback(on_host, shapes, jax.tree.leaves(grads), ordered=True))

    return step, opt


def loss_of(params, x, y):
    hidden = jnp.tanh(x @ params["in"] + params["bias"])
    return jnp.mean((hidden @ params["out"] - y) ** 2)


keys = jax.random.split(jax.random.key(0), 3)
params = {
    "in": jax.random.normal(keys[0], (8, 32)) / 3,
    "bias": jnp.zeros(32),
    "out": jax.random.normal(keys[1], (32, 8)) / 6,
}
x = jax.random.normal(keys[2], (256, 8))
y = x[:, ::-1]
rates = bitstep.schedules.lrs("cosine", STEPS, lr=0.02, num_warmup_steps=10, num_training_steps=STEPS)
apply, opt = host_optimizer(params, "adamw_torch", rates, weight_decay=0.0)


@jax.jit
def train(params):
    loss, grads = jax.value_and_grad(loss_of)(params, x, y)
    return apply(grads), loss


first = float(loss_of(params, x, y))
for _ in range(STEPS):
    params, loss = train(params)
print(f"loss from {first:.3f} to {float(loss):.3f}; {len(opt.save())} bytes of state")
assert float(loss) < first / 10
