#!/usr/bin/env python3
"""Time one training step in PyTorch: the peer of eqco-models' example `train_step`.

A step is forward, backward and SGD (momentum 0.9, weight decay 1e-4) of a ResNet with a two-layer
head, in training mode. The loss is the mean squared error against a fixed random target, so that
the network alone is measured.

`--variant` chooses how PyTorch does it. `cargo xtask bench train` tries all of a precision and compares
with the fastest. `whole-model` keeps even the weights in bfloat16.

Prints one line: the median time of a step, the peak memory of the process, and what the process
held before the network was built (half a gigabyte of libraries).
"""

import argparse
import json
import resource
import statistics
import sys
import time

import torch
from torch import nn

WARM_UP_STEPS = 2
# A run that has taken longer ends after the step that it is in: without instructions for bf16 a step
# can take most of a minute.
MOST_SECONDS = 20
EMBEDDING_SIZE = 128


def conv_norm(channels_in, channels_out, kernel, stride):
    """A convolution without bias and its batch norm."""
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out),
    )


class ResidualBlock(nn.Module):
    """relu(layers(x) + shortcut(x)), with a relu between the layers."""

    def __init__(self, layers, channels_in, channels_out, stride):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        changes_shape = stride != 1 or channels_in != channels_out
        self.shortcut = (
            conv_norm(channels_in, channels_out, 1, stride) if changes_shape else nn.Identity()
        )

    def forward(self, images):
        hidden = images
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if index + 1 < len(self.layers):
                hidden = torch.relu_(hidden)
        return torch.relu_(hidden.add_(self.shortcut(images)))


def basic_block(channels_in, width, stride):
    layers = [conv_norm(channels_in, width, 3, stride), conv_norm(width, width, 3, 1)]
    return ResidualBlock(layers, channels_in, width, stride), width


def bottleneck_block(channels_in, width, stride):
    channels_out = 4 * width
    layers = [
        conv_norm(channels_in, width, 1, 1),
        conv_norm(width, width, 3, stride),
        conv_norm(width, channels_out, 1, 1),
    ]
    return ResidualBlock(layers, channels_in, channels_out, stride), channels_out


def resnet(block, block_counts, width, imagenet_stem):
    """The layers of a ResNet up to the pooled representation, and its number of channels."""
    if imagenet_stem:
        layers = [conv_norm(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    else:
        layers = [conv_norm(3, width, 3, 1), nn.ReLU(inplace=True)]
    channels = width
    for stage, count in enumerate(block_counts):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            layer, channels = block(channels, width << stage, stride)
            layers.append(layer)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return layers, channels


def with_mlp_head(backbone):
    """The network of a backbone and MoCo v2's head."""
    layers, channels = backbone
    head = [nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, EMBEDDING_SIZE)]
    return nn.Sequential(*layers, *head)


# Name of the work: how to build the backbone, and the side of its images in pixels.
WORKS = {
    "resnet18": (lambda: resnet(basic_block, [2, 2, 2, 2], 64, False), 32),
    "resnet18-w16": (lambda: resnet(basic_block, [2, 2, 2, 2], 16, False), 32),
    "resnet50": (lambda: resnet(bottleneck_block, [3, 4, 6, 3], 64, True), 224),
}

# What each precision can be had as; xtask/src/bench/train/program.rs lists the same.
VARIANTS = {
    "f32": ["channels-last", "channels-first"],
    "bf16": ["autocast-channels-last", "whole-model-channels-last", "autocast-channels-first"],
}


def peak_memory_bytes():
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def time_steps(work, variant, batch, steps):
    """Seconds of each of `steps` steps, after the warm-up."""
    build, size = WORKS[work]
    layout = torch.contiguous_format if variant.endswith("first") else torch.channels_last
    network = with_mlp_head(build()).train().to(memory_format=layout)
    images = torch.randn(batch, 3, size, size).to(memory_format=layout)
    if variant.startswith("whole-model"):
        network, images = network.bfloat16(), images.bfloat16()
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=variant.startswith("autocast"))
    target = torch.randn(batch, EMBEDDING_SIZE)
    # `fused` is one pass over each parameter, PyTorch's fastest on a CPU.
    optimiser = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True
    )

    seconds = []
    while len(seconds) < WARM_UP_STEPS + steps and sum(seconds) < MOST_SECONDS:
        start = time.perf_counter()
        with autocast:
            embeddings = network(images)
        loss = nn.functional.mse_loss(embeddings.float(), target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return after_warm_up(seconds)


def after_warm_up(seconds):
    """The steps that count: of a run cut short within its warm-up, the last."""
    return seconds[min(WARM_UP_STEPS, len(seconds) - 1) :]


def report(arguments, seconds, memory_before, family):
    """Prints the measurement in the form that both sides share."""
    result = {
        "seconds_per_step": statistics.median(seconds),
        "steps": len(seconds),
        "peak_memory_bytes": peak_memory_bytes(),
        "memory_before_bytes": memory_before,
        "threads": arguments.threads,
        "family": family,
        "precision": arguments.precision,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print("  ".join(f"{name} {value}" for name, value in result.items()))


def main():
    parser = argparse.ArgumentParser(description="Time one training step in PyTorch.")
    parser.add_argument("--work", choices=WORKS, required=True)
    parser.add_argument("--precision", choices=VARIANTS, default="f32")
    every_variant = [variant for variants in VARIANTS.values() for variant in variants]
    parser.add_argument("--variant", choices=every_variant, help="default: the precision's first")
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5, help="steps to time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    variants = VARIANTS[arguments.precision]
    variant = arguments.variant or variants[0]
    if variant not in variants:
        parser.error(f"--variant {variant}: {arguments.precision} has {', '.join(variants)}")

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    memory_before = peak_memory_bytes()
    seconds = time_steps(arguments.work, variant, arguments.batch, arguments.steps)
    report(arguments, seconds, memory_before, f"torch-{variant}")


if __name__ == "__main__":
    main()
