from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anograd import Target, per_sample
from anograd.losses import LOSSES


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 4))


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        ("*", ("0.weight", "0.bias", "2.weight", "2.bias")),
        ("*.weight", ("0.weight", "2.weight")),
        (["2.*", "0.bias"], ("0.bias", "2.weight", "2.bias")),  # in the module's order, not the globs'
    ],
)
def test_globs_choose_parameters_in_the_modules_order(
    layers: str | list[str], chosen: tuple[str, ...]
) -> None:
    assert Target.adopt(net(), layers=layers).layers == chosen


def test_a_shared_parameter_is_chosen_once_by_any_of_its_names() -> None:
    module = net()
    module.add_module("again", module[0])
    assert Target.adopt(module, layers="again.weight").layers == ("0.weight",)


def test_a_pattern_that_matches_nothing_lists_the_names() -> None:
    with pytest.raises(
        ValueError, match=r"layers='up\.\*' matches no parameter.*0\.weight, 0\.bias, 2\.weight"
    ):
        Target.adopt(net(), layers="up.*")


def test_an_unknown_loss_lists_the_losses() -> None:
    with pytest.raises(ValueError, match=r"no loss is called 'mae'.*'mse', 'bce'"):
        Target.adopt(net(), loss="mae")


def test_a_loss_that_is_not_one_number_a_row_is_refused() -> None:
    target = Target.adopt(net(), loss=lambda output, x: (output - x).square().mean())
    with pytest.raises(ValueError, match=r"the loss gave shape \(\) for 1 rows.*flatten\(1\)\.mean\(1\)"):
        per_sample(target, torch.zeros(2, 4))


def test_a_reconstruction_of_another_shape_is_refused() -> None:
    """Broadcasting would give a number, and a wrong one."""
    with pytest.raises(ValueError, match=r"\(2, 4\) into \(2, 1\).*hand over loss="):
        Target.adopt(nn.Linear(4, 1)).loss(torch.zeros(2, 1), torch.zeros(2, 4))


def test_losses_against_torch() -> None:
    torch.manual_seed(0)
    x, output = torch.rand(5, 2, 3), torch.rand(5, 2, 3)
    rows = range(5)
    expected = {
        "mse": [F.mse_loss(output[i], x[i]) for i in rows],
        "bce": [F.binary_cross_entropy(output[i], x[i]) for i in rows],
        "bce_with_logits": [F.binary_cross_entropy_with_logits(output[i], x[i]) for i in rows],
    }
    for name, values in expected.items():
        torch.testing.assert_close(LOSSES[name](output, x), torch.stack(values))
    classes, logits = torch.randint(4, (5, 6)), torch.randn(5, 4, 6)
    each = [F.cross_entropy(logits[i : i + 1], classes[i : i + 1]) for i in rows]
    torch.testing.assert_close(LOSSES["cross_entropy"](logits, classes), torch.stack(each))


def test_bce_stays_finite_at_the_ends() -> None:
    loss = LOSSES["bce"](torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(loss, -torch.tensor([1e-7]).log(), rtol=0.02, atol=0)


@pytest.mark.parametrize("loss", ["bce", "vae_reconstruction"])
def test_logits_are_refused_where_probabilities_are_wanted(loss: str) -> None:
    """Clipped to 0..1 they would have a loss, and no gradient."""

    class Outputs(nn.Sequential):
        def forward(self, x: torch.Tensor) -> Any:
            output = super().forward(x)
            return output if loss == "bce" else (output, x, x)

    x, layer = torch.rand(5, 3), nn.Linear(3, 3)
    nn.init.constant_(layer.bias, 3.0)
    with pytest.raises(ValueError, match=rf"but the loss '{loss}' takes .*nn\.Sigmoid\(\).*bce_with_logits"):
        per_sample(Target.adopt(Outputs(layer), loss=loss), x)
    assert (per_sample(Target.adopt(Outputs(layer, nn.Sigmoid()), loss=loss), x).norm > 0).all()


def test_cross_entropy_refuses_numbers() -> None:
    with pytest.raises(TypeError, match=r"integer classes.*torch\.float32.*loss='mse'"):
        LOSSES["cross_entropy"](torch.zeros(2, 3), torch.zeros(2))


def test_cross_entropy_says_how_to_turn_logits_whose_classes_come_last() -> None:
    torch.manual_seed(0)
    net, tokens = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)), torch.randint(9, (3, 7))
    with pytest.raises(ValueError, match=r"\(1, 7\) into \(1, 7, 9\).*logits \(n, c, \.\.\.\)") as told:
        per_sample(Target.adopt(net, loss="cross_entropy"), tokens)
    turned = eval(str(told.value).rpartition("loss=")[2])
    found = per_sample(Target.adopt(net, loss=turned), tokens).loss
    torch.testing.assert_close(found, LOSSES["cross_entropy"](net(tokens).mT, tokens))


def test_vae_losses_against_torch_distributions() -> None:
    torch.manual_seed(0)
    x, xhat = torch.rand(4, 1, 2, 3), torch.rand(4, 1, 2, 3)
    mean, log_variance = torch.randn(4, 5), torch.randn(4, 5)
    output = (xhat, mean, log_variance)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros(5), torch.ones(5))
    kl = torch.distributions.kl_divergence(posterior, prior).sum(1) / 6
    torch.testing.assert_close(LOSSES["vae_reconstruction"](output, x), LOSSES["bce"](xhat, x))
    torch.testing.assert_close(LOSSES["vae"](output, x), LOSSES["bce"](xhat, x) + kl)


class Keeping(nn.Module):
    """A network that keeps what it made: of its weight once, of its rows each time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.mixing: torch.Tensor | None = None
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mixing is None:
            self.mixing = self.weight.softmax(0)
        self.last = x @ self.mixing
        self.seen.append(self.last)
        return self.last


def test_what_a_network_keeps_of_a_pass_is_neither_used_nor_left() -> None:
    network, rows = Keeping(), torch.randn(3, 4)
    found = per_sample(Target.adopt(network), rows, want="norm").norm[:, 0]
    assert network.mixing is None
    assert not network.seen
    assert not hasattr(network, "last")
    for row, length in zip(rows, found, strict=True):
        output = row[None] @ network.weight.softmax(0)
        (own,) = torch.autograd.grad((output - row).square().mean(), network.weight)
        torch.testing.assert_close(length, own.norm())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # scripting itself is on its way out
def test_a_scripted_part_is_refused_by_name() -> None:
    scripted = torch.jit.script(nn.Tanh())
    with pytest.raises(TypeError, match="part '1' is a scripted one"):
        Target.adopt(nn.Sequential(nn.Linear(4, 4), scripted), layers="0.*")


@pytest.mark.parametrize("loss", [lambda o, x: o.sum(1).to(torch.complex64), lambda o, x: o.sum(1).long()])
def test_a_loss_that_is_no_real_number_is_refused(loss: Any) -> None:
    with pytest.raises(ValueError, match=r"the loss is (complex64|int64), but a real number"):
        per_sample(Target.adopt(nn.Linear(4, 4), loss=loss), torch.randn(2, 4), want="norm")


@pytest.mark.parametrize(
    ("returned", "said"),
    [(None, "NoneType"), (torch.zeros(2), r"shape \(2,\)"), (torch.zeros(()), r"shape \(\)")],
)
def test_what_a_fold_returns_is_looked_at(returned: Any, said: str) -> None:
    with pytest.raises(ValueError, match=rf"fold returned {said} for gradients of shape \(2, 4"):
        per_sample(
            Target.adopt(nn.Linear(4, 4)), torch.randn(2, 4), want="fold", fold=lambda name, g: returned
        )
