#!/usr/bin/env python3
"""Time one whole SiMo step in PyTorch: the peer of eqco-train's example `contrastive_step`.

A step takes a batch from a DataLoader whose workers make two views of every image with
torchvision, encodes the keys with the momentum encoder, encodes the queries, evaluates EqCo's loss
over negatives from the same batch, goes back, and updates the encoder (SGD) and the momentum
encoder. Network, head, recipe and constants are those of the preset `simo-cifar-r18`.

`--transforms v1` works on PIL images and `v2` on uint8 tensors; images are normalised a batch at a
time, which is faster than one by one. `--workers 0` makes the views in the training process.
"""

import argparse
import math
import time

import numpy
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.transforms import v2

from train_step_torch import (
    EMBEDDING_SIZE,
    MOST_SECONDS,
    WARM_UP_STEPS,
    WORKS,
    after_warm_up,
    peak_memory_bytes,
    report,
)

DATA_SET_SIZE = 2000
IMAGE_SIZE = 32
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
DEVIATION = torch.tensor([0.247, 0.2435, 0.2616]).view(1, 3, 1, 1)
TEMPERATURE = 0.2
ALPHA = 256
NEGATIVES = 16
EMA_COEFFICIENT = 0.99


def recipe(kind):
    """MoCo v2's views without blur, to uint8 tensors."""
    jitter = kind.ColorJitter(0.4, 0.4, 0.4, 0.1)
    chain = [
        kind.RandomResizedCrop(IMAGE_SIZE, scale=(0.2, 1.0)),
        kind.RandomHorizontalFlip(),
        kind.RandomApply([jitter], 0.8),
        kind.RandomGrayscale(0.2),
    ]
    return kind.Compose(chain + [kind.PILToTensor()] if kind is v1 else chain)


class TwoViews(Dataset):
    """Images in memory, as torchvision's CIFAR10 holds them, twice augmented."""

    def __init__(self, kind):
        shape = (DATA_SET_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3)
        pixels = numpy.random.default_rng(0).integers(0, 256, shape, dtype=numpy.uint8)
        self.pixels = pixels if kind is v1 else torch.from_numpy(pixels).permute(0, 3, 1, 2)
        self.of_pil = kind is v1
        self.recipe = recipe(kind)

    def __len__(self):
        return DATA_SET_SIZE

    def __getitem__(self, index):
        image = Image.fromarray(self.pixels[index]) if self.of_pil else self.pixels[index]
        return self.recipe(image), self.recipe(image)


def batches(loader):
    """Batches for ever."""
    while True:
        yield from loader


def normalised(views):
    """float32, channels-last."""
    images = views.to(torch.float32, memory_format=torch.channels_last)
    return images.div_(255).sub_(MEAN).div_(DEVIATION)


def encoder():
    """The preset's network: ResNet-18 with the head of two batch norms."""
    layers, channels = WORKS["resnet18"][0]()
    head = [
        nn.Linear(channels, channels, bias=False),
        nn.BatchNorm1d(channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, EMBEDDING_SIZE, bias=False),
        nn.BatchNorm1d(EMBEDDING_SIZE),
    ]
    return nn.Sequential(*layers, *head).train().to(memory_format=torch.channels_last)


def simo_loss(queries, keys):
    """EqCo's loss (arXiv 2010.01929, equation 5) with its own negatives for every query."""
    batch = len(queries)
    similarities = queries @ keys.T / TEMPERATURE
    # 16 of the other images, without repetition.
    order = torch.rand(batch, batch - 1).argsort(dim=1)[:, :NEGATIVES]
    others = order + (order >= torch.arange(batch).unsqueeze(1))
    negatives = similarities.gather(1, others) + math.log(ALPHA / NEGATIVES)
    logits = torch.cat([similarities.diagonal().unsqueeze(1), negatives], dim=1)
    return nn.functional.cross_entropy(logits, torch.zeros(batch, dtype=torch.long))


class Step:
    """The state of training, and one step of it."""

    def __init__(self, precision):
        self.query_encoder = encoder()
        self.key_encoder = encoder()
        self.key_encoder.load_state_dict(self.query_encoder.state_dict())
        self.key_encoder.requires_grad_(False)
        # `fused` is one pass over each parameter, PyTorch's fastest on a CPU.
        self.optimiser = torch.optim.SGD(
            self.query_encoder.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True
        )
        self.parameters = [p.detach() for p in self.query_encoder.parameters()]
        self.key_parameters = list(self.key_encoder.parameters())
        self.is_bf16 = precision == "bf16"

    def embed(self, network, views):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16):
            embeddings = network(normalised(views))
        return nn.functional.normalize(embeddings.float(), dim=1)

    def __call__(self, query_views, key_views):
        torch._foreach_lerp_(self.key_parameters, self.parameters, 1 - EMA_COEFFICIENT)
        with torch.no_grad():
            keys = self.embed(self.key_encoder, key_views)
        loss = simo_loss(self.embed(self.query_encoder, query_views), keys)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.item()


def main():
    parser = argparse.ArgumentParser(description="Time one whole SiMo step in PyTorch.")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    parser.add_argument("--threads", type=int, default=1, help="threads of the training process")
    parser.add_argument("--workers", type=int, default=1, help="processes that make views")
    parser.add_argument("--transforms", choices=["v1", "v2"], default="v1")
    parser.add_argument("--steps", type=int, default=5, help="steps to time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    kind = v1 if arguments.transforms == "v1" else v2
    memory_before = peak_memory_bytes()
    loader = DataLoader(
        TwoViews(kind),
        batch_size=arguments.batch,
        shuffle=True,
        drop_last=True,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
    )
    step = Step(arguments.precision)
    source = batches(loader)
    seconds = []
    while len(seconds) < WARM_UP_STEPS + arguments.steps and sum(seconds) < MOST_SECONDS:
        start = time.perf_counter()
        step(*next(source))
        seconds.append(time.perf_counter() - start)
    family = f"torch-{arguments.transforms}-{arguments.workers}-workers"
    report(arguments, after_warm_up(seconds), memory_before, family)


if __name__ == "__main__":
    main()
