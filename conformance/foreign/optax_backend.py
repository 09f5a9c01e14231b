"""optax on the CPU, as a backend of the suite, under the names of the torch classes that it has a counterpart of.

Arguments that optax doesn't have are refused; coupled weight decay is composed as its manual says.
"""

import json
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import optax

from request import Unsupported, arguments, serve, widen

jax.config.update("jax_enable_x64", True)
TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def only(arguments, **allowed):
    """Refuses arguments that optax has no counterpart of."""
    for key, values in allowed.items():
        if arguments.get(key) not in values:
            raise Unsupported(f"optax has no {key}")


def coupled(arg, rule):
    """Weight decay as torch's older classes have it: added to the gradient."""
    decay = arg["weight_decay"]
    return optax.chain(optax.add_decayed_weights(decay), rule) if decay else rule


def adamw(arg):
    only(arg, amsgrad=[False], maximize=[False])
    b1, b2 = arg["betas"]
    return optax.adamw(arg["lr"], b1=b1, b2=b2, eps=arg["eps"], weight_decay=arg["weight_decay"])


def adam(arg):
    only(arg, amsgrad=[False], maximize=[False], decoupled_weight_decay=[False])
    b1, b2 = arg["betas"]
    return coupled(arg, optax.adam(arg["lr"], b1=b1, b2=b2, eps=arg["eps"]))


def sgd(arg):
    only(arg, maximize=[False], dampening=[0])
    return coupled(arg, optax.sgd(arg["lr"], momentum=arg["momentum"] or None, nesterov=arg["nesterov"]))


def nadam(arg):
    only(arg, maximize=[False], decoupled_weight_decay=[False])
    b1, b2 = arg["betas"]
    return coupled(arg, optax.nadam(arg["lr"], b1=b1, b2=b2, eps=arg["eps"]))


def radam(arg):
    only(arg, maximize=[False], decoupled_weight_decay=[False])
    b1, b2 = arg["betas"]
    return coupled(arg, optax.radam(arg["lr"], b1=b1, b2=b2, eps=arg["eps"]))


def adamax(arg):
    only(arg, maximize=[False])
    b1, b2 = arg["betas"]
    return coupled(arg, optax.adamax(arg["lr"], b1=b1, b2=b2, eps=arg["eps"]))


def adagrad(arg):
    only(arg, maximize=[False], lr_decay=[0])
    return coupled(arg, optax.adagrad(arg["lr"], initial_accumulator_value=arg["initial_accumulator_value"], eps=arg["eps"]))


def adadelta(arg):
    only(arg, maximize=[False])
    return coupled(arg, optax.adadelta(arg["lr"], rho=arg["rho"], eps=arg["eps"]))


def rmsprop(arg):
    only(arg, maximize=[False], centered=[False])
    return coupled(arg, optax.rmsprop(arg["lr"], decay=arg["alpha"], eps=arg["eps"], eps_in_sqrt=False,
                         momentum=arg["momentum"] or None))


def lion(arg):
    b1, b2 = arg["betas"]
    return optax.lion(arg["lr"], b1=b1, b2=b2, weight_decay=arg["weight_decay"])


RULES = {"adamw_torch": adamw, "adam": adam, "sgd": sgd, "nadam": nadam, "radam": radam, "adamax": adamax,
         "adagrad": adagrad, "adadelta": adadelta, "rmsprop": rmsprop, "lion_32bit": lion}
# Where optax keeps what the reference calls so.
SLOTS = {"exp_avg": "mu", "exp_avg_sq": "nu", "step": "count", "momentum_buffer": "trace", "square_avg": "nu",
         "sum": "sum_of_squares", "exp_inf": "nu"}
KNOWN = {"adamw_torch": ["exp_avg", "exp_avg_sq", "step"], "adam": ["exp_avg", "exp_avg_sq", "step"],
         "radam": ["exp_avg", "exp_avg_sq", "step"], "sgd": ["momentum_buffer"], "adagrad": ["sum"]}


def load(tree, state):
    """The state of the chain, with the reference's numbers where it has fields of these names."""
    fields = getattr(tree, "_fields", ())
    if fields:
        new = {field: state.get(field, load(getattr(tree, field), state)) for field in fields}
        return type(tree)(**new)
    return tuple(load(x, state) for x in tree) if isinstance(tree, tuple) else tree


def backend(request):
    if request.kind != "optimizer" or request.name not in RULES:
        raise Unsupported(f"only {', '.join(RULES)}")
    known = KNOWN.get(request.name)
    meta, out = {"format": "bitstep-answer/1", "state": "hidden"}, {}
    started = int(request.meta["done"]) > 0 or any(".state0." in name for name in request.tensors)
    if started and known is None:
        raise Unsupported("its state can't be set to the reference's: another form")
    count, rates = int(request.meta["steps"]), request.array("lr")
    for group in arguments(json.loads(request.meta["groups"])):
        rule = RULES[request.name]
        changing = optax.inject_hyperparams(lambda lr: rule({**group, "lr": lr})) if rates is not None else None
        chain = changing(lr=float(rates[0])) if changing else rule(group)
        for i in group["params"]:
            dtype, init = request.tensors[f"p{i}.init"]
            if dtype not in TYPES:
                raise Unsupported(f"no {dtype}")
            value = jax.numpy.asarray(widen(dtype, init)).astype(TYPES[dtype])
            state = chain.init(value)
            given = request.under(f"p{i}.state0.")
            if int(request.array("updates")[i]) and set(known or ()) - set(given):
                if request.name != "sgd" or group["momentum"]:
                    meta[f"p{i}.lacks"] = sorted(set(known) - set(given))[0]
                    continue
            if given:
                as_here = {SLOTS[slot]: jax.numpy.asarray(x) for slot, x in given.items() if slot in known}
                as_here = {f: x.astype("int32") if f == "count" else x.astype(TYPES[dtype]) for f, x in as_here.items()}
                if "count" in as_here:
                    as_here["count"] = as_here["count"].reshape(())
                state = load(state, as_here)
            has, (kind, grads), rows = request.array(f"p{i}.has_grad"), request.tensors[f"p{i}.grad"], []
            for t in range(count):
                if rates is not None:
                    state = state._replace(hyperparams={"lr": jax.numpy.asarray(float(rates[t]))})
                if has is None or has[t]:
                    grad = jax.numpy.asarray(widen(kind, grads[t])).astype(TYPES[kind])
                    updates, state = chain.update(grad, state, value)
                    value = optax.apply_updates(value, updates)
                rows.append(np.asarray(value))
            stacked = np.stack(rows)
            out[f"p{i}.value"] = (dtype, stacked.view("<u2") if dtype == "BF16" else stacked)
    return meta, out


serve(backend)
