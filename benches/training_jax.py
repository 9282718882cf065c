#!/usr/bin/env python3
"""The networks of models/fashion-deep.toml and fashion-conv.toml in JAX, with Adam, on random images: records per second.

benches/training.py runs it and `latentflow train` alternately on the same cores.
usage: training_jax.py deep|conv BATCH STEPS
"""
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def dense(key, inputs, outputs):
    bound = 0.7 * (6 / inputs) ** 0.5
    return jax.random.uniform(key, (inputs, outputs), minval=-bound, maxval=bound), jnp.zeros(outputs)


def conv(key, inputs, outputs, kernel):
    bound = 0.7 * (6 / (inputs * kernel * kernel)) ** 0.5
    return jax.random.uniform(key, (outputs, inputs, kernel, kernel), minval=-bound, maxval=bound), jnp.zeros(outputs)


def make(net, key):
    keys = iter(jax.random.split(key, 16))
    if net == "deep":
        sizes = [784, 400, 200, 32, 200, 400, 784]
        return [dense(next(keys), a, b) for a, b in zip(sizes, sizes[1:])]
    return [
        conv(next(keys), 1, 32, 3), conv(next(keys), 32, 64, 3), conv(next(keys), 64, 128, 3),
        dense(next(keys), 2048, 32), dense(next(keys), 32, 2048),
        conv(next(keys), 128, 64, 3), conv(next(keys), 64, 32, 4), conv(next(keys), 32, 1, 4),
    ]


NUMBERS = ("NCHW", "OIHW", "NCHW")


def down(x, weights):
    w, b = weights
    return lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=NUMBERS) + b[None, :, None, None]


def up(x, weights, kernel):
    w, b = weights
    pad = kernel - 2
    y = lax.conv_general_dilated(x, w, (1, 1), ((pad, pad), (pad, pad)), lhs_dilation=(2, 2), dimension_numbers=NUMBERS)
    return y + b[None, :, None, None]


def forward(net, p, x):
    if net == "deep":
        x = x.reshape(len(x), -1) * 4 - 2
        for i, (w, b) in enumerate(p):
            x = x @ w + b
            x = x if i == 2 else jax.nn.sigmoid(x) if i == 5 else jax.nn.elu(x)
        return x.reshape(-1, 1, 28, 28)
    x = x * 4 - 2
    for i in range(3):
        x = jax.nn.elu(down(x, p[i]))
    x = x.reshape(len(x), -1)
    x = x @ p[3][0] + p[3][1]
    x = jax.nn.elu(x @ p[4][0] + p[4][1]).reshape(-1, 128, 4, 4)
    x = jax.nn.elu(up(x, p[5], 3))
    x = jax.nn.elu(up(x, p[6], 4))
    return jax.nn.sigmoid(up(x, p[7], 4))


def main():
    net, batch, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = make(net, jax.random.PRNGKey(0))
    zeros = jax.tree.map(jnp.zeros_like, params)

    @jax.jit
    def step(params, m, v, t, x):
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((forward(net, p, x) - x) ** 2))(params)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        fix1, fix2 = 1 - 0.9**t, 1 - 0.999**t
        params = jax.tree.map(lambda p, m, v: p - 1e-3 * (m / fix1) / (jnp.sqrt(v / fix2) + 1e-8), params, m, v)
        return params, m, v, loss

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4096, 1, 28, 28), dtype=np.uint8)
    m, v = zeros, zeros
    started, done = None, 0
    for t in range(1, steps + 21):
        picked = rng.integers(0, len(images), batch)
        x = images[picked].astype(np.float32) / 255
        params, m, v, loss = step(params, m, v, t, x)
        if t == 20:
            loss.block_until_ready()
            started = time.perf_counter()
        elif t > 20:
            done += batch
    loss.block_until_ready()
    print(f"{done / (time.perf_counter() - started):.0f}")


main()
