"""R2-AD2 against numbers from the authors' own code: gradients, batch norm, scores, training steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import arrays
from torch import Tensor, nn

from anograd import Target, per_sample
from anograd.alarm.network import AlarmNetwork, PooledBatchNorm
from anograd.alarm.published import published_step
from anograd.losses import Loss, bce_with_logits
from anograd.networks import DropoutAutoencoder
from anograd.train import KerasAdam

CLOSE = {"rtol": 1e-5, "atol": 1e-7}
EPSILON = 1e-7
FINAL, STEPS = "r2ad2_mammography.npz", "r2ad2_train_steps_mammography.npz"


def keras_bce(logits: Tensor, x: Tensor) -> Tensor:
    """Cross entropy as Keras 2 has it, whose epsilon is in the clip and once more in the logarithms."""
    p = logits.sigmoid().clamp(EPSILON, 1 - EPSILON)
    return -(x * (p + EPSILON).log() + (1 - x) * (1 - p + EPSILON).log()).mean(1)


def weights(path: Path, prefix: str) -> list[Tensor]:
    """Return the Keras weights under a prefix, in their order."""
    found = arrays(path, prefix)
    return [found[name] for name in sorted(found) if name[:2].isdigit()]


def load(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    """Copy Keras weights, whose matrices stand the other way round."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value.t() if value.ndim == 2 else value)


def trained(alarm: AlarmNetwork) -> list[nn.Parameter]:
    return [p for p in alarm.parameters() if p.requires_grad]


def targets(path: Path, loss: str | Loss = keras_bce) -> list[Target]:
    made = []
    for t in range(3):
        net = DropoutAutoencoder(6, (5, 3, 2))
        load(list(net.parameters()), weights(path, f"target{t}/"))
        made.append(Target.adopt(net, loss=loss))
    return made


def gradients(made: list[Target], x: Tensor) -> Tensor:
    """Return the gradients of all checkpoints, (n, T, k), each kernel's laid out as in Keras."""
    checkpoints = []
    for target in made:
        parameters = target.parameters().values()
        parts = per_sample(target, x, ("full",)).full.split([p.numel() for p in parameters], dim=1)
        in_keras = [
            part.unflatten(1, p.shape).mT.flatten(1) if p.ndim == 2 else part
            for part, p in zip(parts, parameters, strict=True)
        ]
        checkpoints.append(torch.cat(in_keras, dim=1))
    return torch.stack(checkpoints, dim=1)


def norm_from(values: list[Tensor]) -> PooledBatchNorm:
    norm = PooledBatchNorm(126)
    with torch.no_grad():
        for mine, value in zip(state(norm), values, strict=True):
            mine.copy_(value)
    return norm.eval()


def state(norm: PooledBatchNorm) -> list[Tensor]:
    return [norm.gamma, norm.beta, norm.mean, norm.variance]


def alarm_from(values: list[Tensor], widths: tuple[int, ...], dropout: float = 0.4) -> AlarmNetwork:
    alarm = AlarmNetwork(126, 3, widths, dropout)
    load(trained(alarm), values)
    return alarm.eval()


@pytest.mark.parametrize("t", [0, 1, 2])
def test_reconstructions_and_losses(reference: Path, t: int) -> None:
    path = reference / FINAL
    x, net = arrays(path)["x"], targets(path)[t].module.eval()
    torch.testing.assert_close(net(x).sigmoid(), arrays(path)[f"target{t}/reconstruction"], **CLOSE)
    torch.testing.assert_close(bce_with_logits(net(x), x), arrays(path)[f"target{t}/bce_loss"], **CLOSE)


def test_gradients_at_three_checkpoints(reference: Path) -> None:
    path = reference / FINAL
    found, expected = gradients(targets(path), arrays(path)["x"]), arrays(path)["gradients"]
    assert (
        expected[expected != 0].abs().median() > 1e-4
    )  # or the absolute tolerance would stand in for the relative one
    torch.testing.assert_close(found, expected, **CLOSE)


def test_gradients_of_logits_differ_only_by_the_epsilon_of_keras(reference: Path) -> None:
    path = reference / FINAL
    found = gradients(targets(path, "bce_with_logits"), arrays(path)["x"])
    torch.testing.assert_close(found, arrays(path)["gradients"], rtol=1e-5, atol=1e-6)


def test_normalised_gradients(reference: Path) -> None:
    path = reference / FINAL
    norm = norm_from(weights(path, "preprocess/"))
    torch.testing.assert_close(norm(arrays(path)["gradients"]), arrays(path)["normalised"], **CLOSE)


def test_scores_from_given_gradients(reference: Path) -> None:
    path = reference / FINAL
    alarm = alarm_from(weights(path, "alarm/"), (100, 50, 25, 10))
    found = alarm(arrays(path)["normalised"]).sigmoid()
    torch.testing.assert_close(found, arrays(path)["scores"], **CLOSE)


def test_scores_of_32_rows_end_to_end(reference: Path) -> None:
    path = reference / FINAL
    alarm = alarm_from(weights(path, "alarm/"), (100, 50, 25, 10))
    norm = norm_from(weights(path, "preprocess/"))
    found = alarm(norm(gradients(targets(path, "bce_with_logits"), arrays(path)["x"]))).sigmoid()
    torch.testing.assert_close(found, arrays(path)["scores"], **CLOSE)


def test_three_training_steps(reference: Path) -> None:
    path = reference / STEPS
    made, given = targets(path), arrays(path)
    norm = norm_from(weights(path, "init/preprocess/"))
    alarm = alarm_from(weights(path, "init/alarm/"), (8, 6, 5, 4), dropout=0)
    alarm_optimizer = KerasAdam(trained(alarm), 1e-3)
    norm_optimizer = KerasAdam([norm.gamma, norm.beta], 1e-3)
    for k in range(3):
        features, noise = gradients(made, given[f"step{k}/x"]), gradients(made, given["noise"][k])
        labels = given[f"step{k}/y"].squeeze(1)
        losses = published_step(norm, alarm, features, labels, noise, alarm_optimizer, norm_optimizer)
        torch.testing.assert_close(losses, given[f"step{k}/losses"], **CLOSE)
        for found, expected in zip(state(norm), weights(path, f"after_step{k}/preprocess/"), strict=True):
            torch.testing.assert_close(found, expected, **CLOSE)
        for found, expected in zip(trained(alarm), weights(path, f"after_step{k}/alarm/"), strict=True):
            torch.testing.assert_close(found, expected.t() if expected.ndim == 2 else expected, **CLOSE)
