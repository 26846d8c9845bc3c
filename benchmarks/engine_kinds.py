"""Per-sample gradients of eight kinds of networks: time and memory beside one forward and backward pass.

Norm, inner product and sketch of all parameters' gradients, in one pass; one thread. Beside it
``vmap(grad)`` and Opacus, where they run, giving the same norms and inner products. MiniLM, a pretrained
sentence encoder, is measured where its package is installed (see `examples/minilm.py`).

``python benchmarks/engine_kinds.py``.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import record
from anograd import Sketch, Target, per_sample
from anograd.networks import ConvAutoencoder
from engine import Way, medians, mlp, peak_bytes

NAME = "engine_kinds"
SKETCH = Sketch(32)
MOST_FLOATS = 5e8  # of stored gradients, for the ways that store them


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch norm, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the same shape, (n, channels, height, width)."""
        return torch.relu(x + self.body(x))


class Sequences(nn.Module):
    """An LSTM that reads a sequence and one that writes it again."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(features, hidden, batch_first=True)
        self.decoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return sequences of the same shape, (n, steps, features)."""
        read, _ = self.encoder(x)
        written, _ = self.decoder(read[:, -1:].expand(-1, x.shape[1], -1).contiguous())
        return self.head(written)


def resnet() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(stem, Residual(32), Residual(32), Residual(32), pool, nn.Linear(32, 10))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, activation="gelu")
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(16, 128), encoder, nn.Linear(128, 16))


def sequence_convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 32, 5, 2, 2), nn.ReLU(), nn.Conv1d(32, 64, 5, 2, 2), nn.ReLU(),
        nn.ConvTranspose1d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose1d(32, 4, 4, 2, 1),
    )  # fmt: skip


def volume_convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv3d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose3d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose3d(16, 1, 4, 2, 1),
    )  # fmt: skip


def minilm() -> tuple[Target, Tensor]:
    """Return the pretrained sentence encoder under its denoising loss, and 32 rows of 64 tokens."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
    import minilm as example

    encoder = example.Gaps.pretrained()
    tokens = torch.randint(1000, 20_000, (32, 64), generator=torch.Generator().manual_seed(0))
    return Target.adopt(encoder, loss=example.missed), tokens


Case = Callable[[], tuple[Target, Tensor]]


def _of(
    make: Callable[[], nn.Module], shape: tuple[int, ...], loss: str
) -> Callable[[], tuple[Target, Tensor]]:
    return lambda: (Target.adopt(make(), loss=loss), torch.rand(shape))


KINDS: dict[str, Case] = {
    "MLP 784-256-64-256-784": _of(mlp, (512, 784), "mse"),
    "CAE 28 x 28": _of(lambda: ConvAutoencoder(1, 28, 28), (128, 1, 28, 28), "mse"),
    "ResNet, batch norm, 32 x 32": _of(resnet, (64, 3, 32, 32), "predicted"),
    "transformer encoder, 32 tokens": _of(transformer, (64, 32, 16), "mse"),
    "LSTM autoencoder, 30 steps": _of(lambda: Sequences(16, 64), (64, 30, 16), "mse"),
    "1-d convolutions, 128 steps": _of(sequence_convolutions, (128, 4, 128), "mse"),
    "3-d convolutions, 16 x 16 x 16": _of(volume_convolutions, (32, 1, 16, 16, 16), "mse"),
    "MiniLM, 22.6 million weights": minilm,
}


def ways(target: Target, x: Tensor) -> dict[str, Way]:
    """Return the ways, and the training step that they are measured by."""
    net = target.module.eval()
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    every = {name: p.detach() for name, p in net.named_parameters()}

    def forward_backward() -> Tensor:
        net.zero_grad(set_to_none=True)
        loss: Tensor = target.loss(net(x), x).mean()
        torch.autograd.backward(loss)
        return loss.detach()

    def anograd() -> Any:
        return per_sample(target, x, ("norm", "inner", "sketch"), reference=reference, sketch=SKETCH)

    def loss_of_row(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        return target.loss(functional_call(net, parameters, (row[None],)), row[None]).sum()

    def vmap_grad() -> tuple[Tensor, Tensor]:
        found = vmap(grad(loss_of_row), (None, 0))(every, x)
        return _read({name: g.flatten(1) for name, g in found.items()}, reference)

    found: dict[str, Way] = {"forward + backward": forward_backward, "anograd": anograd}
    floats = len(x) * sum(p.numel() for p in every.values())
    if floats <= MOST_FLOATS:
        found["vmap(grad)"] = vmap_grad
        found["Opacus grad_sample"] = opacus(target, x)
    return found


def opacus(target: Target, x: Tensor) -> Way:
    """Return the same by Opacus, on a copy with its own recurrent layers and attention in their places."""
    from opacus.grad_sample import GradSampleModule
    from opacus.validators import ModuleValidator

    wrapped, reference = None, dict[str, Tensor]()

    def run() -> tuple[Tensor, Tensor]:
        nonlocal wrapped, reference
        if wrapped is None:
            own: nn.Module = copy.deepcopy(target.module)
            normed = any(isinstance(one, nn.BatchNorm2d) for one in own.modules())
            if not normed:  # with group norm in its place it would be another network
                own = ModuleValidator.fix(own)
            own.train().requires_grad_(True)  # Opacus looks on in training only
            reference = {name: torch.randn_like(p) for name, p in own.named_parameters()}
            wrapped = GradSampleModule(own, loss_reduction="sum", strict=False)
        wrapped.zero_grad(set_to_none=True)
        torch.autograd.backward(target.loss(wrapped(x), x).sum())
        named = wrapped._module.named_parameters()
        return _read({name: p.grad_sample.flatten(1) for name, p in named}, reference)

    return run


def _read(gradients: dict[str, Tensor], reference: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    norms = torch.stack([g.norm(dim=1) for g in gradients.values()], 1)
    inner = torch.stack([g @ reference[name].flatten() for name, g in gradients.items()], 1)
    return norms, inner


def measure(kind: str, repeats: int) -> None:
    """Write a line for each way that runs, and one with the reason for each that does not."""
    torch.manual_seed(0)
    target, x = KINDS[kind]()
    named = ways(target, x)
    failed: dict[str, str] = {}
    for name in list(named):
        try:
            named[name]()
        except Exception as error:  # a rival that cannot do it is a result
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            del named[name]
    pair = {name: named[name] for name in ("forward + backward", "anograd")}
    seconds = medians({name: way for name, way in named.items() if name not in pair}, max(3, repeats // 3))
    seconds |= medians(pair, repeats)
    for name, way in named.items():
        peak = peak_bytes(way)
        line = {
            "kind": kind,
            "batch": len(x),
            "weights": sum(p.numel() for p in target.module.parameters()),
            "way": name,
            "milliseconds": round(1e3 * seconds[name], 2),
            "times_forward_backward": round(seconds[name] / seconds["forward + backward"], 3),
            "peak_mib": round(peak / 2**20, 1),
            "failed": None,
            "repeats": repeats,
        }
        record.write(NAME, line)
        print(line, flush=True)
    for name, why in failed.items():
        record.write(NAME, {"kind": kind, "batch": len(x), "way": name, "failed": why})
        print(kind, name, why, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--kinds", help="the beginnings of their names, with commas between; all by default")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for kind in KINDS:
        if asked.kinds is None or kind.startswith(tuple(asked.kinds.split(","))):
            measure(kind, asked.repeats)


if __name__ == "__main__":
    main()
