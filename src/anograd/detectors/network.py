"""The network a detector reads: one that it trains itself, or one that was handed in and stays as it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from anograd.batches import out_of_memory
from anograd.checkpoint import digest
from anograd.detectors import checks
from anograd.detectors.base import Detector, Floats
from anograd.detectors.checks import HandedIn
from anograd.detectors.precise import finest
from anograd.features import Sampler
from anograd.gradients import per_sample, plan, steady
from anograd.losses import bce_with_logits, kl_divergence
from anograd.masked import MaskedColumns, edges_of
from anograd.networks import (
    OF_TABLES,
    ClusterClassifier,
    ConvAutoencoder,
    DenseAutoencoder,
    choose_kind,
)
from anograd.rotations import RotationAutoencoder
from anograd.spill import Some
from anograd.target import Target, forward_pass, in_precision_of, output_of, real_type
from anograd.train import seeded

DECODER = "up.*.weight"
MOST_SEEN = 20_000  # rows that are looked at before training: images whose mean is where a network begins
NARROW = 8  # a code of fewer units has no ReLU, which often switches all of them off
PLANNED = 64  # rows that show how the network is to be read; of fewer it would be found anew with the next
DRAWS = (
    "the network that was handed in, or its loss, draws random numbers: the same row has another output, and "
    "another score, each time. Draw none in evaluation mode: return the mean in place of a sample, "
    "F.dropout(x, training=self.training)"
)
MOST_DRAWS = 10  # of a network whose code is the same for all rows before it has learned anything
Penalty = Callable[[Any, Tensor], Tensor]


@contextmanager
def in_words(raw: bool) -> Iterator[None]:
    """Say of a network that was handed in what its look-up of a number that is in no table means."""
    try:
        yield
    except IndexError as error:
        if not raw:
            raise
        raise ValueError(
            f"the network that was handed in does not take some of these rows ({error}): is a number beyond "
            f"those that an embedding knows?"
        ) from error


class NetworkDetector(Detector):
    """A detector of one network, its own autoencoder or an adopted one.

    Its constructor takes `target`, one of `kinds` or a Target, and `hidden`, widths or None.
    """

    kinds: ClassVar[tuple[str, ...]] = ("auto", "cae", "vae", "dense")
    start: str = "mean"  # where an image network's output begins: at the mean image, or as "drawn"
    read: ClassVar[str | Sequence[str]] = "*"  # which parameters are read where the network is its own

    target: str | Target
    hidden: Sequence[int] | None
    target_: Target
    network_: dict[str, Any]
    dtype_: torch.dtype
    digest_: str

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.target, Target) and self.target not in self.kinds:
            raise ValueError(
                f"target={self.target!r}: write one of {', '.join(map(repr, self.kinds))}, or hand over a "
                f"network: target=Target.adopt(net, layers='decoder.*.weight')"
            )
        if self.hidden is not None:
            checks.widths(self, "hidden", "(64, 8), the encoder's, code last")

    def _raw_rows(self) -> bool:
        return isinstance(self.target, Target)

    def _device(self) -> torch.device:
        if isinstance(self.target, Target):  # an adopted network is never moved
            return next(self.target.module.parameters()).device
        return super()._device()

    def _check_settled(self) -> None:
        super()._check_settled()
        if isinstance(self.target, Target) and self._fingerprint_of_network() != self.digest_:
            raise ValueError(
                f"the network that was handed in ({self.network_['class']}) has other weights than when "
                f"this detector was fitted: fit it again, or hand over a copy that nobody trains, "
                f"target=Target.adopt(copy.deepcopy(net), ...)"
            )

    def _fingerprint_of_network(self) -> str:
        module, loss = self.target_.module, self.target_.loss
        with forward_pass(self.target_):  # no other thread's stand-ins are in the weights' place
            of_loss = loss.parameters() if isinstance(loss, nn.Module) else ()
            return digest(None, chain(module.state_dict().values(), of_loss))

    def _batched(self, function: Callable[[Tensor], Tensor], pieces: Iterable[Tensor]) -> Floats:
        with in_words(self._raw_rows()):
            return super()._batched(function, pieces)

    def _expected(self, rows: Tensor) -> Tensor | None:
        output = _output(self.target_, rows)
        output = output[0] if isinstance(output, tuple) else output
        if not isinstance(output, Tensor) or output.shape != rows.shape or not rows.is_floating_point():
            return None
        output = output.detach()
        return output.sigmoid() if self.target_.loss is bce_with_logits else output

    def _adopt(self, target: Target, rows: Tensor) -> None:
        """Take a network that was handed in, once it is known that it takes rows like these."""
        self.target_, self.network_ = target, {"kind": "adopted", "class": type(target.module).__qualname__}
        self.digest_ = self._fingerprint_of_network()
        try:
            first = _output(target, rows)
        except (RuntimeError, IndexError, AssertionError) as error:
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            what = f"rows of shape {tuple(rows.shape[1:])} and type {str(rows.dtype).removeprefix('torch.')}"
            hint = (
                "" if rows.is_floating_point() else "; whole numbers are for embeddings: X.astype('float32')"
            )
            raise ValueError(
                f"the network that was handed in does not take {what}: {str(error).splitlines()[0]}{hint}"
            ) from error
        if not _alike(first, _output(target, rows)):
            raise ValueError(DRAWS)

    def _plan(self, rows: Tensor) -> None:
        """Let the engine look at rows like those to come, and refuse a network that draws random numbers."""
        planned = plan(self.target_, in_precision_of(self.target_, rows))
        if planned.draws and isinstance(self.target, Target):
            raise ValueError(DRAWS)

    def _is_steady(self) -> bool:
        """Tell whether rows that single precision cannot tell are computed again in double.

        Of networks for images, with thousands of ReLUs each. On a GPU each batch would be waited for.
        """
        return self.network_["kind"] in ("cae", "vae", "rotations") and self._device().type == "cpu"

    def _settle(self) -> None:
        """Choose the precision in which gradients are read: double for small networks of ours."""
        module = self.target_.module
        if self.network_["kind"] in (*OF_TABLES, "clusters"):
            module.to(finest(self._device()))
        self.dtype_ = real_type(module)

    def _precise(self, rows: Tensor) -> Tensor:
        return rows.to(self.dtype_) if rows.is_floating_point() else rows

    def _sampler(self) -> Sampler:
        return steady if self._is_steady() else per_sample

    def _own(self, rows: Tensor | Some, seed: int) -> tuple[Target, Penalty | None]:
        """Return a fresh network for rows like these, on the device, and what its training adds."""
        assert isinstance(self.target, str)
        self.network_ = describe(self.target, tuple(rows.shape[1:]), self.hidden, self._narrowest())
        if self.network_["kind"] == "masked":
            return self._asking(rows[:MOST_SEEN], seed), None
        for draw in range(MOST_DRAWS):
            target, penalty = build(self.network_, self.read, seed + draw)
            target.module.to(self._device())
            if not self._is_dead(target, rows):
                break
        if self.start == "mean" and isinstance(target.module, ConvAutoencoder):
            target.module.start_at(rows[:MOST_SEEN])
        return target, penalty

    def _asking(self, rows: Tensor, seed: int) -> Target:
        """Return a network that tells hidden columns, its cells laid by these rows."""
        edges = edges_of(rows.cpu())
        self.network_["cells"] = [len(one) + 1 for one in edges]
        target, _ = build(self.network_, self.read, seed)
        cast(MaskedColumns, target.module).start_at(rows.cpu(), edges)
        target.module.to(self._device())
        return target

    def _narrowest(self) -> int:
        """Return how many units the code of a dense autoencoder has at least, where no widths are given."""
        return 1

    def _is_dead(self, target: Target, rows: Tensor | Some) -> bool:
        """Tell whether a dense autoencoder gives all these rows the same output."""
        return isinstance(target.module, DenseAutoencoder) and target.module.is_dead(rows[:MOST_SEEN])

    def _check_alive(self, rows: Tensor | Some) -> None:
        """Warn of a network that gives all these rows, which differ, the same output after its training."""
        if not self._is_dead(self.target_, rows):
            return
        some = rows[:MOST_SEEN]
        if bool((some != some[:1]).any()):
            warnings.warn(
                "the network learned nothing but the mean row: its code is the same for all rows, so what "
                "columns have to do with each other is not noticed. Fit with a wider code, such as "
                "hidden=(64, 32, 8), or with another random_state",
                stacklevel=4,
            )

    def _weights(self) -> dict[str, Tensor]:
        return {f"weights/{name}": value for name, value in self.target_.module.state_dict().items()}

    def _restore_network(
        self, network: dict[str, Any], weights: Mapping[str, Tensor], target: Target | None
    ) -> None:
        self.network_ = network
        if network["kind"] == "adopted":
            if target is None:
                raise HandedIn(
                    f"this detector was fitted on a network that was handed in ({network['class']}), which "
                    f"the folder does not rebuild: load it with target=Target.adopt(your_network, ...)"
                )
            self.target = self.target_ = target
            try:
                target.module.load_state_dict(weights)
            except RuntimeError as error:
                raise HandedIn(
                    f"the network that was handed in is not built as the one that this detector was fitted "
                    f"on ({network['class']}): {error}"
                ) from error
        else:
            checks.no_more_than(len(network.get("hidden", ())), len(weights))
            largest, cells = max(map(Tensor.numel, weights.values())), network.get("cells", ())
            checks.no_more_than(max(len(cells), sum(cells)), largest)
            with torch.device("meta"):  # takes no memory, whatever sizes the folder speaks of
                self.target_ = build(network, self.read, seed=0)[0]
            self.target_.module.load_state_dict(weights, assign=True)
        if network["kind"] == "adopted":
            self.digest_ = self._fingerprint_of_network()
        else:
            self.target_.module.to(self._device()).eval()


def _output(target: Target, rows: Tensor) -> Any:
    """Return what a network makes of rows, real ones in its own precision; no gradient is asked for."""
    with forward_pass(target):
        return output_of(target, in_precision_of(target, rows))


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two outputs of the same rows are the same but for rounding, tensors within others too."""
    if isinstance(one, Tensor):
        one, other = (each.to_dense() if each.layout != torch.strided else each for each in (one, other))
        return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-6, equal_nan=True)
    if isinstance(one, dict):
        return all(_alike(value, other[name]) for name, value in one.items())
    return all(map(_alike, one, other)) if isinstance(one, tuple | list) else True


def describe(
    kind: str, shape: tuple[int, ...], hidden: Sequence[int] | None, narrowest: int
) -> dict[str, Any]:
    """Return a network for rows of this shape as plain data, from which `build` makes it."""
    kind = choose_kind(kind, shape, "cae")
    if kind == "masked":
        return {"kind": kind}
    if kind == "dense":
        widths = [int(width) for width in hidden] if hidden is not None else widths_for(shape[0], narrowest)
        network = {"kind": kind, "features": shape[0], "hidden": widths}
        return {**network, "linear_code": True} if widths[-1] < NARROW else network
    return {"kind": kind, "channels": shape[0], "height": shape[1], "width": shape[2]}


def widths_for(features: int, narrowest: int) -> list[int]:
    """Return the encoder widths for a table of so many columns, the code being about half the columns."""
    return [64, 32, max(narrowest, min(16, (features + 1) // 2))]


def build(
    network: Mapping[str, Any], layers: str | Sequence[str], seed: int
) -> tuple[Target, Penalty | None]:
    """Return the target that a description stands for, freshly drawn, and the penalty it is trained with."""
    kind = network["kind"]
    with seeded(seed):
        module: nn.Module
        if kind == "clusters":
            classifier = ClusterClassifier(network["features"], network["classes"], network["hidden"])
            return Target.adopt(classifier, loss=classifier.loss, layers=layers), None
        if kind == "dense":
            linear = network.get("linear_code", False)
            module = DenseAutoencoder(network["features"], network["hidden"], linear_code=linear)
        elif kind == "masked":
            module = MaskedColumns(network["cells"])
        elif kind == "rotations":
            module = RotationAutoencoder(network["channels"], network["height"], network["width"])
        else:
            make = partial(ConvAutoencoder, network["channels"], network["height"], network["width"])
            module = make(variational=kind == "vae")
    if kind == "vae":
        return Target.adopt(module, loss="vae_reconstruction", layers=layers), kl_divergence
    if isinstance(module, MaskedColumns | RotationAutoencoder):
        return Target.adopt(module, loss=module.loss, layers=layers), None
    return Target.adopt(module, loss="mse", layers=layers), None
