"""What GradCon's score costs beside one forward + backward of the same network, and beside the other ways.

One run, one thread, interleaved, medians. Peak memory is what torch's allocator held at most, above what it
held before. Run ``python benchmarks/engine.py``; the table in the docs is made from the lines it writes.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import record
from anograd import Target, per_sample
from anograd.networks import ConvAutoencoder
from anograd.represent import cosine
from anograd.score import gradcon_score

BETA = 0.12
ONE_BY_ONE = "batch of one, as published"
Way = Callable[[], Tensor]


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(),
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 784),
    )  # fmt: skip


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "CAE 28x28, decoder kernels": (lambda: ConvAutoencoder(1, 28, 28), (128, 1, 28, 28), ["up.*.weight"]),
    "MLP 784-256-64-256-784, decoder weights": (mlp, (512, 784), ["4.weight", "6.weight"]),
    "MLP 784-256-64-256-784, all weights": (mlp, (512, 784), ["*.weight"]),
}


def ways(net: nn.Module, target: Target, x: Tensor) -> dict[str, Way]:
    """Return the ways to one GradCon score a row, and the training step they are measured by."""
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    lengths = {name: r.norm() for name, r in reference.items()}

    def forward_backward() -> Tensor:
        net.zero_grad(set_to_none=True)
        loss = F.mse_loss(net(x), x)
        loss.backward()
        return loss.detach()

    def anograd() -> Tensor:
        found = per_sample(target, x, ("loss", "norm", "inner"), reference=reference)
        return gradcon_score(found.loss, cosine(found, reference), BETA)

    def combine(losses: Tensor, gradients: dict[str, Tensor]) -> Tensor:
        cosines = [
            g.flatten(1) @ reference[name].flatten() / (g.flatten(1).norm(dim=1) * lengths[name])
            for name, g in gradients.items()
        ]
        return losses - BETA * torch.stack(cosines, 1).mean(1)

    def batch_of_one() -> Tensor:
        """One ordinary backward pass a row, through the whole network, as the published evaluation does."""
        scores = []
        for row in x.split(1):
            net.zero_grad()
            loss = F.mse_loss(net(row), row)
            loss.backward()
            named = {name: p.grad[None] for name, p in target.parameters().items()}
            scores.append(combine(loss.detach()[None], named))
        return torch.cat(scores)

    every = {name: p.detach() for name, p in net.named_parameters()}
    chosen = {name: every[name] for name in target.layers}

    def loss_of_row(parameters: dict[str, Tensor], row: Tensor) -> tuple[Tensor, Tensor]:
        loss = F.mse_loss(functional_call(net, {**every, **parameters}, (row[None],))[0], row)
        return loss, loss

    def vmap_grad() -> Tensor:
        gradients, losses = vmap(grad(loss_of_row, has_aux=True), (None, 0))(chosen, x)
        return combine(losses, gradients)

    return {
        "forward + backward": forward_backward,
        "anograd": anograd,
        ONE_BY_ONE: batch_of_one,
        "vmap(grad)": vmap_grad,
    }


def opacus_way(net: nn.Module, target: Target, x: Tensor) -> Way:
    """Return Opacus' grad_sample with the cosine, on a copy that asks for the chosen gradients only."""
    from opacus.grad_sample import GradSampleModule

    own = copy.deepcopy(net)
    for name, p in own.named_parameters():
        p.requires_grad_(name in target.layers)
    wrapped = GradSampleModule(own, loss_reduction="sum", strict=False)
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}

    def opacus() -> Tensor:
        wrapped.zero_grad(set_to_none=True)
        losses = (wrapped(x) - x).square().flatten(1).mean(1)
        losses.sum().backward()
        cosines = []
        for name, p in own.named_parameters():
            if name in target.layers:
                g, r = p.grad_sample.flatten(1), reference[name].flatten()
                cosines.append(g @ r / (g.norm(dim=1) * r.norm()))
        return losses.detach() - BETA * torch.stack(cosines, 1).mean(1)

    return opacus


def medians(named: dict[str, Way], repeats: int) -> dict[str, float]:
    """Return the median seconds of each way, taken in turns so that a slow moment hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in named}
    for turn in range(repeats + 1):
        for name, way in named.items():
            began = time.perf_counter()
            way()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def peak_bytes(way: Way) -> int:
    """Return the most that torch's CPU allocator held above what it held before the call."""
    from torch.profiler import ProfilerActivity, profile

    way()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        way()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in found.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    for case, (make, shape, layers) in CASES.items():
        torch.manual_seed(0)
        net, x = make(), torch.rand(shape)
        target = Target.adopt(net, layers=layers)
        named = ways(net, target, x)
        for other in (ONE_BY_ONE, "vmap(grad)"):
            torch.testing.assert_close(named["anograd"](), named[other](), rtol=1e-4, atol=1e-6)
        named["Opacus grad_sample"] = opacus_way(net, target, x)
        # The two that are close are timed by themselves; the others would push them out of the cache.
        pair = {name: named[name] for name in ("forward + backward", "anograd")}
        seconds = medians({name: way for name, way in named.items() if name not in pair}, arguments.repeats)
        seconds |= medians(pair, 3 * arguments.repeats)
        peaks = {name: peak_bytes(way) for name, way in named.items()}
        for name in named:
            line = {
                "case": case,
                "batch": shape[0],
                "way": name,
                "milliseconds": round(1e3 * seconds[name], 2),
                "times_forward_backward": round(seconds[name] / seconds["forward + backward"], 3),
                "times_anograd": round(seconds[name] / seconds["anograd"], 2),
                "peak_mib": round(peaks[name] / 2**20, 2),
                "peak_times_forward_backward": round(peaks[name] / peaks["forward + backward"], 3),
                "repeats": arguments.repeats,
            }
            record.write("engine", line)
            print({key: line[key] for key in list(line)[:8]}, flush=True)


if __name__ == "__main__":
    main()
