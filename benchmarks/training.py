"""What GradCon's gradient constraint costs: an epoch with it beside a plain epoch of the same network.

One run, one thread, epochs of 84 batches of 64 images taken in turns, medians of processor time.
Run ``python benchmarks/training.py``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

import record
from anograd import Target
from anograd.constraint import RunningMean
from anograd.networks import ConvAutoencoder
from anograd.train import TrainingPlan, adam, lay_out, seeded, step

PUBLISHED = "the same, layer by layer as published"
OURS = "GradCon's constraint"
WAYS = ("plain", OURS, PUBLISHED)
PLAN = TrainingPlan(epochs=1, batch_size=64, learning_rate=1e-3, alpha=0.03)


def epoch_of(x: torch.Tensor, way: str, channels: int) -> Callable[[], None]:
    """Return one epoch of training, done one of three ways."""
    with seeded(0):
        net = ConvAutoencoder(channels, 28, 28).to(x.device)
    if way == OURS:
        lay_out(net, torch.channels_last)
    target = Target.adopt(net, layers="up.*.weight")
    plain_adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    optimizer = adam(net, 1e-3) if way == OURS else plain_adam
    mean = RunningMean(target, "cumulative")

    def constrained() -> None:
        for batch in x.split(64):
            step(target, None, batch, mean, optimizer, PLAN)

    def bare() -> None:
        for batch in x.split(64):
            optimizer.zero_grad(set_to_none=True)
            F.mse_loss(net(batch), batch).backward()
            optimizer.step()

    def layer_by_layer() -> None:
        """Take a pass for the gradient of each kernel, then one through all: the published loop's way."""
        for batch in x.split(64):
            optimizer.zero_grad()
            loss = F.mse_loss(net(batch), batch)
            aligned = x.new_zeros(())
            for kernel, reference in zip(target.parameters().values(), mean.mean().values(), strict=True):
                (gradient,) = torch.autograd.grad(loss, kernel, create_graph=True, retain_graph=True)
                aligned = aligned - F.cosine_similarity(gradient.flatten(), reference.flatten(), dim=0) / 4
            (loss + PLAN.alpha * aligned).backward()
            mean.add([kernel.grad for kernel in target.parameters().values()])
            optimizer.step()

    return {"plain": bare, OURS: constrained, PUBLISHED: layer_by_layer}[way]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for channels in (1, 3):
        x = torch.rand(84 * 64, channels, 28, 28, generator=torch.Generator().manual_seed(0))
        named = {way: epoch_of(x, way, channels) for way in WAYS}
        seconds: dict[str, list[float]] = {name: [] for name in named}
        for turn in range(arguments.repeats + 1):
            for name, run in named.items():
                began = time.process_time()  # of this process, whatever else the machine does
                run()
                if turn:
                    seconds[name].append(time.process_time() - began)
        plain = statistics.median(seconds["plain"])
        for name, taken in seconds.items():
            line = {
                "case": f"CAE {channels} x 28 x 28, 84 batches of 64",
                "way": name,
                "seconds_an_epoch": round(statistics.median(taken), 2),
                "times_plain": round(statistics.median(taken) / plain, 2),
                "repeats": arguments.repeats,
            }
            record.write("training", line)
            print(line, flush=True)


if __name__ == "__main__":
    main()
