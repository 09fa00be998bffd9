#!/usr/bin/env python3
"""Time a workload in PyTorch, on request: the peer of `eqco-train gpu-check`, which holds and starts this script.

Messages are lines of JSON on stdout: `{"ready": ...}` after the warm-up, `{"absent": reason}` where there is no PyTorch or no GPU
for it, `{"failed": reason}` for everything else. After `ready`, every line on stdin asks for one measurement, which is answered
with `{"measured": ...}`; the end of stdin ends the process. Nothing runs on the GPU in between, so that two programs can take turns.

Workloads are those of `eqco-train`: a training step of ResNet-50 (forward, backward, SGD with momentum) on images that are on the
device; the whole step of SiMo, from bytes in host memory to the momentum encoder; the loss over a queue with all logits in memory.
Networks are channels-last and run in bfloat16 by autocast; `--variant compile` compiles them.
"""

import argparse
import importlib.util
import json
import math
import sys
import time

EMBEDDING_SIZE = 128
TEMPERATURE = 0.2
ALPHA = 256
NEGATIVES = 5
EMA_COEFFICIENT = 0.9
WARM_UP_STEPS = 5
# torchvision's constants for ImageNet, of values up to 255.
MEAN = [255 * value for value in (0.485, 0.456, 0.406)]
DEVIATION = [255 * value for value in (0.229, 0.224, 0.225)]


def say(**message):
    """One message."""
    print(json.dumps(message), flush=True)


def backbone(small):
    """The layers of ResNet-50, or of a narrow ResNet-18, and its number of channels."""
    from train_step_torch import basic_block, bottleneck_block, resnet

    if small:
        return resnet(basic_block, [2, 2, 2, 2], 8, True)
    return resnet(bottleneck_block, [3, 4, 6, 3], 64, True)


def head_of_two_norms(channels):
    """SiMo's head."""
    from torch import nn

    return [
        nn.Linear(channels, channels, bias=False),
        nn.BatchNorm1d(channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, EMBEDDING_SIZE, bias=False),
        nn.BatchNorm1d(EMBEDDING_SIZE),
    ]


def sgd(parameters):
    """SGD with momentum, one pass over all parameters."""
    import torch

    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)


def resnet50(torch, arguments, compiled):
    """One training step of the network alone."""
    from train_step_torch import with_mlp_head

    network = with_mlp_head(backbone(arguments.small)).train()
    network = network.to(arguments.device, memory_format=torch.channels_last)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=arguments.device)
    images = images.to(memory_format=torch.channels_last)
    target = torch.zeros(arguments.batch, EMBEDDING_SIZE, device=arguments.device)
    optimiser = sgd(network.parameters())

    def forward(images):
        with torch.autocast(arguments.device, torch.bfloat16):
            embeddings = network(images)
        embeddings = torch.nn.functional.normalize(embeddings.float(), dim=1)
        return torch.nn.functional.mse_loss(embeddings, target)

    forward = compiled(forward)

    def step():
        optimiser.zero_grad(set_to_none=True)
        forward(images).backward()
        optimiser.step()

    return step


def simo(torch, arguments, compiled):
    """The whole step: upload, keys, queries, loss, SGD, and the momentum encoder's update."""
    nn = torch.nn
    encoders = []
    for _ in range(2):
        layers, channels = backbone(arguments.small)
        network = nn.Sequential(*layers, *head_of_two_norms(channels)).train()
        encoders.append(network.to(arguments.device, memory_format=torch.channels_last))
    queries_of, keys_of = encoders
    keys_of.load_state_dict(queries_of.state_dict())
    keys_of.requires_grad_(False)
    optimiser = sgd(queries_of.parameters())
    sources = [parameter.detach() for parameter in queries_of.parameters()]
    targets = list(keys_of.parameters())

    shape = (arguments.batch, arguments.size, arguments.size, 3)
    views = [torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(2)]
    if arguments.device == "cuda":
        views = [view.pin_memory() for view in views]
    constants = [torch.tensor(values, device=arguments.device) for values in (MEAN, DEVIATION)]
    mean, deviation = (values.view(1, 3, 1, 1) for values in constants)
    columns = torch.arange(arguments.batch, device=arguments.device).unsqueeze(1)
    first = torch.zeros(arguments.batch, dtype=torch.long, device=arguments.device)

    def embed(network, view):
        # The permuted bytes are channels-last, and so is what is computed from them.
        images = (view.permute(0, 3, 1, 2).float() - mean) / deviation
        with torch.autocast(arguments.device, torch.bfloat16):
            embeddings = network(images)
        return nn.functional.normalize(embeddings.float(), dim=1)

    def contrast(view, keys, order):
        similarities = embed(queries_of, view) @ keys.T / TEMPERATURE
        others = order + (order >= columns)
        negatives = similarities.gather(1, others) + math.log(ALPHA / NEGATIVES)
        logits = torch.cat([similarities.diagonal().unsqueeze(1), negatives], dim=1)
        return nn.functional.cross_entropy(logits, first)

    embed_keys = compiled(lambda view: embed(keys_of, view))
    contrast = compiled(contrast)

    def step():
        torch._foreach_lerp_(targets, sources, 1 - EMA_COEFFICIENT)
        query_view, key_view = (view.to(arguments.device, non_blocking=True) for view in views)
        order = torch.rand(arguments.batch, arguments.batch - 1, device=arguments.device)
        order = order.argsort(dim=1)[:, :NEGATIVES]
        with torch.no_grad():
            keys = embed_keys(key_view)
        loss = contrast(query_view, keys, order)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def loss(torch, arguments, compiled):
    """Cross-entropy of one positive and all negatives, and the gradient of the queries."""
    rows, count = (32, 128) if arguments.small else (4096, 65536)

    def unit_rows(number):
        values = torch.randn(number, EMBEDDING_SIZE, device=arguments.device)
        return torch.nn.functional.normalize(values, dim=1).bfloat16()

    queries, keys, negatives = unit_rows(rows).requires_grad_(), unit_rows(rows), unit_rows(count)
    first = torch.zeros(rows, dtype=torch.long, device=arguments.device)

    def forward(queries, keys, negatives):
        positive = (queries.float() * keys.float()).sum(1, keepdim=True)
        logits = torch.cat([positive, (queries @ negatives.T).float()], dim=1) / TEMPERATURE
        return torch.nn.functional.cross_entropy(logits, first)

    forward = compiled(forward)

    def step():
        queries.grad = None
        value = forward(queries, keys, negatives)
        value.backward()

    return step


WORKLOADS = {"resnet50": resnet50, "simo": simo, "loss": loss}


def measure(torch, arguments, step):
    """Milliseconds of a step over some, and the most memory of all tensors so far."""
    on_gpu = arguments.device == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(arguments.steps):
        step()
    wait()
    seconds = (time.perf_counter() - start) / arguments.steps
    peak = torch.cuda.max_memory_allocated() if on_gpu else None
    return {"milliseconds": 1e3 * seconds, "peak_bytes": peak}


def run(arguments):
    """Warms up, then measures as often as asked."""
    if importlib.util.find_spec("torch") is None:
        say(absent=f"{sys.executable} has no torch")
        return
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        say(absent=f"torch {torch.__version__} sees no GPU")
        return
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    # TF32 for what autocast leaves in float32: PyTorch's quicker choice.
    torch.set_float32_matmul_precision("high")
    is_compiled = arguments.variant == "compile"
    compiled = torch.compile if is_compiled else lambda function: function
    step = WORKLOADS[arguments.workload](torch, arguments, compiled)
    start = time.perf_counter()
    for _ in range(WARM_UP_STEPS):
        step()
    if arguments.device == "cuda":
        torch.cuda.synchronize()
        # Compilers and the choice of algorithms take memory that steps do not.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    say(ready={"version": torch.__version__, "warm_up_seconds": time.perf_counter() - start})
    for _ in sys.stdin:
        say(measured=measure(torch, arguments, step))


def main():
    parser = argparse.ArgumentParser(description="Time a workload in PyTorch, on request.")
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--variant", choices=["eager", "compile"], required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--batch", type=int, default=256, help="images a step")
    parser.add_argument("--size", type=int, default=224, help="side of an image in pixels")
    parser.add_argument("--steps", type=int, default=10, help="steps of a measurement")
    parser.add_argument("--small", action="store_true", help="a narrow network and a short queue")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except Exception as error:  # whatever it is, the other side must hear of it
        say(failed=f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
