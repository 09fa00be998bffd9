#!/usr/bin/env python3
"""Write the stored PyTorch values that the tests of eqco-models compare with.

Everything is computed in float64. Inputs and weights are not stored: both languages draw them from
the same hash (`hashed` here, `hashed` in crates/eqco-models/tests/kernels/hashed.rs), and all drawn
values are exact in float32. The files hold outputs, gradients and running statistics as float32; a
tensor of more than LARGEST_STORED elements is replaced by PROJECTIONS scalar products with hashed
vectors, under its name and `.projected`. Activations are stored channels-last, weights as PyTorch
has them.

    python3 python/golden_ops.py

writes crates/eqco-models/tests/golden/*.safetensors, and torchvision.txt with the names and shapes
of torchvision's ResNets. Needs the packages of python/requirements.txt.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional

OUT = Path(__file__).resolve().parent.parent / "crates/eqco-models/tests/golden"
LARGEST_STORED = 1200
PROJECTIONS = 4

# name: batch, height, width, channels in, channels out, kernel, stride, padding
CONVOLUTIONS = {
    "3x3": (2, 5, 7, 4, 6, 3, 1, 1),
    "3x3_stride2_odd": (2, 9, 7, 4, 6, 3, 2, 1),
    "3x3_stride2_even": (2, 8, 6, 3, 5, 3, 2, 1),
    "3x3_channels_5_7": (3, 4, 6, 5, 7, 3, 1, 1),
    "3x3_no_padding": (2, 6, 5, 3, 4, 3, 1, 0),
    "1x1": (2, 5, 3, 6, 9, 1, 1, 0),
    "1x1_stride2": (2, 7, 5, 6, 8, 1, 2, 0),
    "7x7_stride2": (2, 15, 12, 3, 4, 7, 2, 3),
    "7x7_stride2_tiny_map": (2, 2, 1, 3, 4, 7, 2, 3),
    "3x3_tiny_map": (2, 1, 1, 4, 5, 3, 1, 1),
    "3x3_batch_1": (1, 6, 5, 4, 3, 3, 1, 1),
    "3x3_many_images": (37, 3, 2, 4, 5, 3, 1, 1),
    "3x3_many_bands": (3, 33, 29, 8, 12, 3, 1, 1),
    "3x3_stride2_many_bands": (1, 48, 40, 64, 8, 3, 2, 1),
    "1x1_many_bands": (2, 31, 33, 24, 10, 1, 1, 0),
    "3x3_channels_16_16": (2, 5, 9, 16, 16, 3, 1, 1),
    "3x3_channels_5_48": (2, 6, 7, 5, 48, 3, 1, 1),
    "3x3_channels_16_8": (2, 4, 5, 16, 8, 3, 1, 1),
    "3x3_channels_32_16_no_padding": (2, 7, 6, 32, 16, 3, 1, 0),
    "3x3_stride2_channels_6_32": (2, 11, 9, 6, 32, 3, 2, 1),
    "7x7_stride2_channels_3_16": (2, 17, 14, 3, 16, 7, 2, 3),
    "3x3_channels_32_48_large": (2, 61, 57, 32, 48, 3, 1, 1),
}

# name: shape (channels last), relu, residual, mean and deviation of the input
BATCH_NORMS = {
    "linear_3": ((2, 5, 7, 3), False, False, 0.0, 1.0),
    "relu_5": ((2, 5, 4, 5), True, False, 0.5, 1.0),
    "residual_24": ((2, 3, 5, 24), False, True, -0.5, 2.0),
    "residual_relu_40": ((1, 3, 5, 40), True, True, 0.0, 1.0),
    "relu_64": ((3, 2, 2, 64), True, False, 0.0, 1.0),
    "head_7": ((9, 7), True, False, 0.0, 1.0),
    "large_mean_24": ((2, 5, 5, 24), False, False, 1000.0, 0.1),
    "relu_24_many_tasks": ((4, 19, 23, 24), True, False, 0.25, 1.0),
    "residual_relu_40_many_tasks": ((2, 19, 23, 40), True, True, 0.0, 1.0),
}

# name: shape, whether values come from few levels, so that windows hold ties
MAX_POOLS = {
    "odd": ((2, 7, 5, 3), False),
    "even": ((2, 6, 8, 2), False),
    "mixed": ((1, 5, 8, 4), False),
    "one_pixel": ((2, 1, 1, 3), False),
    "ties": ((2, 7, 6, 3), True),
}

# name: rows, inputs, outputs, bias
LINEARS = {"biased": (5, 7, 3, True), "plain": (33, 24, 10, False), "one_row": (1, 6, 4, True)}

# name: (block counts, expansion, ImageNet stem, width, image shape)
NETWORKS = {
    "resnet18_cifar": ((2, 2, 2, 2), 1, False, 4, (2, 13, 11, 3)),
    "resnet18_wide": ((2, 2, 2, 2), 1, False, 16, (2, 17, 19, 3)),
    "resnet50_imagenet": ((3, 4, 6, 3), 4, True, 4, (4, 35, 33, 3)),
}
# Gradients stored in full beside the projections of all.
SHOWN_GRADIENTS = ("conv1.weight", "bn1.bias", "layer1.0.bn2.weight", "layer2.0.downsample.1.bias", "layer4.1.bn1.weight")

# name: (hidden normalisation, batch, representation, hidden, embedding)
HEADS = {"mlp": (False, 6, 10, 12, 7), "batch_norm_mlp": (True, 6, 10, 12, 7)}


def hashed(name, shape, low=-1.0, high=1.0):
    """Uniform values in [low, high): splitmix64 at FNV-1a(name), 24 bits each, rounded to float32."""
    stream = 0xCBF29CE484222325
    for byte in name.encode():
        stream = ((stream ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        counter = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
        z = np.uint64(stream) + counter * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(40)).astype(np.float64) / 2.0**24
    values = (low + (high - low) * unit).astype(np.float32).astype(np.float64)
    return torch.from_numpy(values.reshape(shape))


def channels_first(tensor):
    return tensor.movedim(-1, 1).contiguous().requires_grad_()


def channels_last(tensor):
    return tensor.movedim(1, -1).contiguous()


class Golden:
    """The tensors of one file."""

    def __init__(self):
        self.tensors = {}

    def add(self, name, tensor):
        tensor = tensor.detach().contiguous()
        if tensor.numel() > LARGEST_STORED:
            vectors = hashed(f"{name}.projected", (PROJECTIONS, tensor.numel()))
            name, tensor = f"{name}.projected", vectors @ tensor.flatten()
        self.tensors[name] = tensor.numpy().astype(np.float32)

    def save(self, file_name):
        path = OUT / f"{file_name}.safetensors"
        save_file(self.tensors, path)
        print(f"{path.name}: {len(self.tensors)} tensors, {path.stat().st_size} bytes")


def convolutions():
    golden = Golden()
    for name, (batch, height, width, inputs, outputs, kernel, stride, padding) in CONVOLUTIONS.items():
        images = channels_first(hashed(f"{name}.input", (batch, height, width, inputs)))
        weight = hashed(f"{name}.weight", (outputs, inputs, kernel, kernel)).requires_grad_()
        output = functional.conv2d(images, weight, stride=stride, padding=padding)
        gradient = hashed(f"{name}.output_gradient", channels_last(output).shape)
        output.backward(gradient.movedim(-1, 1))
        golden.add(f"{name}.output", channels_last(output))
        golden.add(f"{name}.input_gradient", channels_last(images.grad))
        golden.add(f"{name}.weight_gradient", weight.grad)
    golden.save("conv2d")


def batch_norm(name, shape, relu, residual, mean, deviation, golden):
    channels = shape[-1]
    spread = deviation * math.sqrt(3.0)
    x = channels_first(hashed(f"{name}.input", shape, mean - spread, mean + spread))
    added = channels_first(hashed(f"{name}.residual", shape))
    weight = hashed(f"{name}.weight", (channels,), 0.5, 1.5).requires_grad_()
    bias = hashed(f"{name}.bias", (channels,)).requires_grad_()
    running_mean = hashed(f"{name}.running_mean", (channels,), mean - 1.0, mean + 1.0)
    running_var = hashed(f"{name}.running_var", (channels,), 0.5, 1.5)

    def forward(training):
        output = functional.batch_norm(x, running_mean, running_var, weight, bias, training)
        output = output + added if residual else output
        return functional.relu(output) if relu else output

    golden.add(f"{name}.evaluated", channels_last(forward(False)))
    output = forward(True)
    output.backward(hashed(f"{name}.output_gradient", shape).movedim(-1, 1))
    golden.add(f"{name}.output", channels_last(output))
    golden.add(f"{name}.input_gradient", channels_last(x.grad))
    if residual:
        golden.add(f"{name}.residual_gradient", channels_last(added.grad))
    golden.add(f"{name}.weight_gradient", weight.grad)
    golden.add(f"{name}.bias_gradient", bias.grad)
    golden.add(f"{name}.running_mean", running_mean)
    golden.add(f"{name}.running_var", running_var)


def batch_norms():
    golden = Golden()
    for name, case in BATCH_NORMS.items():
        batch_norm(name, *case, golden)
    golden.save("batch_norm")


def pools():
    golden = Golden()
    for name, (shape, ties) in MAX_POOLS.items():
        values = hashed(f"{name}.input", shape)
        images = channels_first(torch.floor(values * 2.0) if ties else values)
        output = functional.max_pool2d(images, 3, 2, 1)
        gradient = hashed(f"{name}.output_gradient", channels_last(output).shape)
        output.backward(gradient.movedim(-1, 1))
        golden.add(f"{name}.output", channels_last(output))
        golden.add(f"{name}.input_gradient", channels_last(images.grad))
    images = channels_first(hashed("average.input", (3, 5, 4, 7)))
    output = images.mean((2, 3))
    output.backward(hashed("average.output_gradient", output.shape))
    golden.add("average.output", output)
    golden.add("average.input_gradient", channels_last(images.grad))
    golden.save("pools")


def linears():
    golden = Golden()
    for name, (rows, inputs, outputs, biased) in LINEARS.items():
        x = hashed(f"{name}.input", (rows, inputs)).requires_grad_()
        weight = hashed(f"{name}.weight", (outputs, inputs)).requires_grad_()
        bias = hashed(f"{name}.bias", (outputs,)).requires_grad_()
        output = functional.linear(x, weight, bias if biased else None)
        output.backward(hashed(f"{name}.output_gradient", output.shape))
        golden.add(f"{name}.output", output)
        golden.add(f"{name}.input_gradient", x.grad)
        golden.add(f"{name}.weight_gradient", weight.grad)
        if biased:
            golden.add(f"{name}.bias_gradient", bias.grad)
    x = hashed("normalize.input", (5, 37)).requires_grad_()
    output = functional.normalize(x)
    output.backward(hashed("normalize.output_gradient", output.shape))
    golden.add("normalize.output", output)
    golden.add("normalize.input_gradient", x.grad)
    golden.save("linear")


class Block(nn.Module):
    """Basic block (expansion 1) or bottleneck (expansion 4, stride on the 3x3), under torchvision's names."""

    def __init__(self, inputs, width, stride, expansion):
        super().__init__()
        outputs = width * expansion
        if expansion == 1:
            layers = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        else:
            layers = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        for index, (into, out, kernel, step) in enumerate(layers, start=1):
            setattr(self, f"conv{index}", nn.Conv2d(into, out, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{index}", nn.BatchNorm2d(out))
        self.depth = len(layers)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images):
        shortcut = images if self.downsample is None else self.downsample(images)
        x = images
        for index in range(1, self.depth + 1):
            x = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x))
            x = functional.relu(x if index < self.depth else x + shortcut)
        return x


class ResNet(nn.Module):
    """torchvision's ResNet with a free width, up to the pooled representation."""

    def __init__(self, counts, expansion, imagenet_stem, width):
        super().__init__()
        kernel, stride = (7, 2) if imagenet_stem else (3, 1)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.imagenet_stem = imagenet_stem
        channels = width
        for stage, count in enumerate(counts):
            blocks = []
            for index in range(count):
                step = 2 if stage > 0 and index == 0 else 1
                blocks.append(Block(channels, width << stage, step, expansion))
                channels = (width << stage) * expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, images):
        x = functional.relu(self.bn1(self.conv1(images)))
        if self.imagenet_stem:
            x = functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


def fill_with_hashes(prefix, module):
    """Weights uniform with He's deviation by fan-in, statistics and affine parameters near their usual values."""
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if tensor.dim() > 1:
            bound = math.sqrt(6.0 / math.prod(tensor.shape[1:]))
            bounds = (-bound, bound)
        elif name.endswith((".weight", "running_var")):
            bounds = (0.5, 1.5)
        else:
            bounds = (-0.25, 0.25)
        tensor.copy_(hashed(f"{prefix}.{name}", tensor.shape, *bounds))


def add_gradients_and_buffers(golden, prefix, module):
    for name, parameter in module.named_parameters():
        vectors = hashed(f"{prefix}.{name}.projected", (PROJECTIONS, parameter.numel()))
        golden.add(f"{prefix}.{name}.gradient.projected", vectors @ parameter.grad.flatten())
        if name in SHOWN_GRADIENTS:
            golden.add(f"{prefix}.{name}.gradient", parameter.grad)
    for name, buffer in module.named_buffers():
        if not name.endswith("num_batches_tracked"):
            golden.add(f"{prefix}.{name}", buffer)


def networks():
    golden = Golden()
    for prefix, (counts, expansion, imagenet_stem, width, shape) in NETWORKS.items():
        network = ResNet(counts, expansion, imagenet_stem, width).double()
        fill_with_hashes(prefix, network)
        images = channels_first(hashed(f"{prefix}.images", shape))
        golden.add(f"{prefix}.evaluated", network.eval()(images))
        output = network.train()(images)
        output.backward(hashed(f"{prefix}.output_gradient", output.shape))
        golden.add(f"{prefix}.representation", output)
        golden.add(f"{prefix}.image_gradient", channels_last(images.grad))
        add_gradients_and_buffers(golden, prefix, network)
    for prefix, (normalised, batch, inputs, hidden, outputs) in HEADS.items():
        first, last = nn.Linear(inputs, hidden, not normalised), nn.Linear(hidden, outputs, not normalised)
        layers = [first, nn.ReLU(), last]
        if normalised:
            layers = [first, nn.BatchNorm1d(hidden), nn.ReLU(), last, nn.BatchNorm1d(outputs)]
        head = nn.Sequential(*layers).double().train()
        fill_with_hashes(prefix, head)
        x = hashed(f"{prefix}.representation", (batch, inputs)).requires_grad_()
        output = functional.normalize(head(x))
        output.backward(hashed(f"{prefix}.output_gradient", output.shape))
        golden.add(f"{prefix}.embedding", output)
        golden.add(f"{prefix}.representation_gradient", x.grad)
        add_gradients_and_buffers(golden, prefix, head)
    golden.save("networks")


def names_and_shapes(module):
    return {
        name: "x".join(map(str, tensor.shape))
        for name, tensor in module.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }


def torchvision_names():
    """Names and shapes of torchvision's networks, which our reference above must have at width 64 as well."""
    lines = []
    for name, counts, expansion in [
        ("resnet18", (2, 2, 2, 2), 1),
        ("resnet34", (3, 4, 6, 3), 1),
        ("resnet50", (3, 4, 6, 3), 4),
        ("resnet101", (3, 4, 23, 3), 4),
    ]:
        with torch.device("meta"):
            found = names_and_shapes(getattr(torchvision.models, name)())
            reference = names_and_shapes(ResNet(counts, expansion, True, 64))
        assert list(found.items()) == list(reference.items()), name
        lines += [f"[{name}]"] + [f"{key} {shape}" for key, shape in found.items()]
    path = OUT / "torchvision.txt"
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.name}: {len(lines)} lines, {path.stat().st_size} bytes")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    convolutions()
    batch_norms()
    pools()
    linears()
    networks()
    torchvision_names()


if __name__ == "__main__":
    main()
