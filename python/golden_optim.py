"""Writes the stored values that eqco-models' optimisers are tested against.

SGD and AdamW come from torch.optim, in float32. LARS is not in PyTorch: `lars` below states the rule of SimCLR's
`lars_optimizer.py` (its classic momentum) in float64, written down apart from the Rust code.

Run it with `cargo xtask golden optim`; it needs torch.
"""

import json
from pathlib import Path

import torch

OUTPUT = Path(__file__).parent.parent / "crates/eqco-models/tests/golden/optim.json"

RATES = [0.1, 0.05, 0.2, 0.01]
SHAPES = {"weight": (3, 5), "bias": (3,)}


def lars(parameters, gradients, velocities, rate, momentum, weight_decay, trust_coefficient):
    for name, value in parameters.items():
        gradient = gradients[name].double()
        trust_ratio = 1.0
        if name != "bias":
            gradient = gradient + weight_decay * value
            trust_ratio = trust_coefficient * value.norm() / gradient.norm()
        velocities[name] = momentum * velocities[name] + rate * trust_ratio * gradient
        parameters[name] = value - velocities[name]


def run_torch(optimiser, start, gradients):
    parameters = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimiser = optimiser(list(parameters.values()))
    for rate, step in zip(RATES, gradients):
        for group in optimiser.param_groups:
            group["lr"] = rate
        for name, value in parameters.items():
            value.grad = step[name].clone()
        optimiser.step()
    return {name: value.detach() for name, value in parameters.items()}


def run_lars(start, gradients, **settings):
    parameters = {name: value.double() for name, value in start.items()}
    velocities = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for rate, step in zip(RATES, gradients):
        lars(parameters, step, velocities, rate, **settings)
    return parameters


def flat(tensors):
    return {name: [round(v, 9) for v in value.flatten().tolist()] for name, value in tensors.items()}


def main():
    torch.manual_seed(1)
    start = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    gradients = [{name: torch.randn(shape) for name, shape in SHAPES.items()} for _ in RATES]
    sgd = {"name": "sgd", "sgd_momentum": 0.9, "weight_decay": 0.02}
    adamw = {"name": "adamw", "betas": [0.8, 0.99], "eps": 1e-3, "weight_decay": 0.1}
    settings = {"weight_decay": 0.05, "trust_coefficient": 0.02}
    cases = [
        (sgd, run_torch(lambda p: torch.optim.SGD(p, 1.0, momentum=0.9, weight_decay=0.02), start, gradients)),
        (
            sgd | {"nesterov": True},
            run_torch(lambda p: torch.optim.SGD(p, 1.0, momentum=0.9, weight_decay=0.02, nesterov=True), start, gradients),
        ),
        (
            {"name": "sgd", "sgd_momentum": 0.0, "weight_decay": 0.0},
            run_torch(lambda p: torch.optim.SGD(p, 1.0), start, gradients),
        ),
        (
            adamw,
            run_torch(lambda p: torch.optim.AdamW(p, betas=(0.8, 0.99), eps=1e-3, weight_decay=0.1), start, gradients),
        ),
        ({"name": "adamw"}, run_torch(torch.optim.AdamW, start, gradients)),
        ({"name": "lars"} | settings, run_lars(start, gradients, momentum=0.9, **settings)),
    ]
    golden = {
        "learning_rates": RATES,
        "start": flat(start),
        "gradients": [flat(step) for step in gradients],
        "cases": [{"config": config, "expected": flat(expected)} for config, expected in cases],
    }
    OUTPUT.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
