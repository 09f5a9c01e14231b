"""The types of a model's layers, for `bitstep_trainer::ModelLayers`. Copy it into your own code."""

import json


def model_layers(model):
    modules = {name: [f"{c.__module__}.{c.__qualname__}" for c in type(module).__mro__[:-1]]
               for name, module in model.named_modules(remove_duplicate=False)}
    names = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(p, []).append(name)
    parameters = [{"names": n, "shape": list(p.shape)} for p, n in names.items()]
    return {"modules": modules, "parameters": parameters}


def write_model_layers(model, path="model_layers.json"):
    with open(path, "w") as file:
        json.dump(model_layers(model), file)
