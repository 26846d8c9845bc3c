"""From gradients at T checkpoints, and columns, to one score a row: as published, and our default.

Both are modules, so that what was learned is a state dict and the score plain tensor operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from anograd.alarm.balanced import BalancedPlan, Material, logits, parts, train_balanced, without
from anograd.alarm.forest import Forest
from anograd.alarm.fusion import FALLBACK, SHARES, Surprise, beside, choose, quality, surprises, try_weights
from anograd.alarm.network import AlarmNetwork, AlarmPair, PooledBatchNorm
from anograd.alarm.published import AlarmPlan, train_as_published
from anograd.alarm.standard import Novelty, Standard
from anograd.checkpoint import Keeper
from anograd.spill import Rows
from anograd.train import Observer, seeded

AT_ONCE = 1024  # rows
NOISE_ROWS = 4096
MOST_VALIDATION = 10_000
MOST_NORMAL = 4096  # rows that the samples of the forest's trees are drawn from
# Weight of the novelty where nothing is known to choose it by: the largest one, and beside a forest.
WITHOUT_LABELS, BESIDE_MADE_UP = 8.0, 0.5


@dataclass(frozen=True)
class Gradients:
    """Where the gradients of rows come from, and which row is what.

    Attributes
    ----------
    of : callable
        Row numbers, int64 (b,) -> gradients (b, T, k), or with the columns joined to them, (b, T * k + p).
    noise : callable or None
        How many -> the same of fresh noise; draws from the global generator. None: no noise.
    train, validation, known : torch.Tensor of int64
        Numbers of the normal rows to learn from and to choose by, and of the known anomalies.
    """

    of: Callable[[Tensor], Tensor]
    noise: Callable[[int], Tensor] | None
    train: Tensor
    validation: Tensor
    known: Tensor

    @classmethod
    def gather(
        cls,
        read: Callable[[Tensor], Tensor],
        noise: Callable[[int], Tensor] | None,
        train: Tensor,
        validation: Tensor,
        known: Tensor,
        *,
        memory: int | None,
    ) -> Self:
        """Return gradients that are made once and kept, or made anew at each reading.

        Parameters
        ----------
        read : callable
            Numbers of rows of the data -> what `of` gives.
        noise : callable or None
        train, validation, known : torch.Tensor of int64
            Numbers of rows of the data.
        memory : int or None
            Bytes to keep in RAM, more of them in a temporary file; None: make them anew.
        """
        index = torch.cat([train, validation, known])
        places = torch.arange(len(index))
        parts = torch.split(places, [len(train), len(validation), len(known)])
        if memory is None:
            return cls(lambda place: read(index[place]), noise, *parts)
        first = read(index[:AT_ONCE])
        kept = Rows.allocate(len(index), tuple(first.shape[1:]), memory)
        kept.write(0, first.cpu())
        for start in range(AT_ONCE, len(index), AT_ONCE):
            kept.write(start, read(index[start : start + AT_ONCE]).cpu())
        device = first.device
        return cls(lambda place: kept.take(place).to(device), noise, *parts)


def learners(known: int, networks: int, trees: int, *, noise: bool, table: bool) -> dict[str, int]:
    """Return how many "networks" and "trees" learn.

    Parameters
    ----------
    known : int
        Known anomalies. Each network leaves out another part of them.
    networks, trees : int
        At most.
    noise : bool
        Whether made-up rows may stand for anomalies: where none is known, they teach trees on a table, which
        they are a foil for, or else one network.
    table : bool
        Whether rows are those of a table, not images, from which anybody can tell such rows.
    """
    if known:
        return {"networks": min(networks, known), "trees": trees}
    taught = trees if noise and table else 0
    return {"networks": int(noise and not taught), "trees": taught}


class PublishedScorer(nn.Module):
    """R2-AD2 as published: pooled batch norm and alarm network; the score is a logit, high = anomalous.

    Parameters
    ----------
    checkpoints, entries : int
        T and k.
    widths : sequence of int
        Of the alarm network.

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.
    """

    def __init__(self, checkpoints: int, entries: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.norm = PooledBatchNorm(entries)
        self.alarm = AlarmNetwork(entries, checkpoints, widths)

    def learn(
        self,
        gradients: Gradients,
        plan: AlarmPlan,
        *,
        seed: int,
        observe: Observer,
        keep: Keeper | None = None,
    ) -> list[dict[str, float]]:
        """Train in place and return the history, one dict an epoch."""
        index = torch.cat([gradients.train, gradients.known])
        labels = torch.zeros(len(index), device=self.norm.mean.device)
        labels[len(gradients.train) :] = 1
        return train_as_published(
            self.norm, self.alarm, lambda i: gradients.of(index[i.to(index.device)]), labels, gradients.noise,
            plan, seed=seed, observe=observe, keep=keep,
        )  # fmt: skip

    def forward(self, gradients: Tensor) -> Tensor:
        """Return the logits, (n,), high = anomalous."""
        return self.alarm(self.norm(gradients))  # type: ignore[no-any-return]


class BalancedScorer(nn.Module):
    """Our default: surprise by a cross-fitted forest and networks plus weighted surprise by the novelty.

    Parameters
    ----------
    checkpoints, entries, columns : int
        T, k, and the columns of the row itself, which follow the gradients; 0 leaves them out.
    widths : sequence of int
        Of each alarm network.
    recurrent : bool
        Whether the networks read the checkpoints one after the other (LSTMs) or all at once (dense layers).
    networks : int
        How many alarm networks read gradients, each with one that reads columns beside it; 0 leaves the
        score to the novelty, and the forest.
    trees : int, default 0
        Of the forest, which reads columns, where there are any.
    nodes : int, default 0
        Of a forest that is to be loaded.

    Attributes
    ----------
    forest : Forest or None
    weight : torch.Tensor, ()
        How much the novelty counts beside the forest and the alarm networks.
    """

    weight: Tensor
    forest: Forest | None

    def __init__(
        self,
        checkpoints: int,
        entries: int,
        columns: int,
        widths: Sequence[int],
        *,
        recurrent: bool,
        networks: int,
        trees: int = 0,
        nodes: int = 0,
    ) -> None:
        super().__init__()
        self.trees = trees
        self.forest = Forest(columns, trees, nodes) if nodes else None
        self.forest_surprise = Surprise() if nodes else None
        self.standard = Standard(checkpoints * entries, *([columns] if columns else []))
        self.novelty = Novelty(checkpoints * entries)
        self.alarms = nn.ModuleList(
            AlarmPair(checkpoints, entries, columns, widths, recurrent=recurrent) for _ in range(networks)
        )
        self.alarm_surprise = Surprise()
        self.novelty_surprise = Surprise()
        self.register_buffer("weight", torch.tensor(WITHOUT_LABELS, dtype=torch.float64))

    def learn(
        self,
        gradients: Gradients,
        plan: BalancedPlan,
        *,
        weight: float | None,
        seed: int,
        observe: Observer,
        keep: Keeper | None = None,
    ) -> tuple[list[dict[str, float]], int, list[dict[str, float]]]:
        """Fit in place; return the history, the kept epoch, and what each share and weight would give.

        Parameters
        ----------
        gradients : Gradients
        plan : BalancedPlan
        weight : float or None
            Of the novelty; None chooses it by the known anomalies that a network did not see.
        seed : int
        observe : callable
        keep : Keeper, optional
            Whence an interrupted training goes on.
        """
        self.standard.fit(self._pieces(gradients.of, gradients.train))

        def features_of(index: Tensor) -> Tensor:
            found: Tensor = self.standard(gradients.of(index))
            return found

        self.novelty.fit(self._pieces(features_of, gradients.train))
        validation = gradients.validation[:MOST_VALIDATION]
        known = features_of(gradients.known)
        novelties = torch.cat([self.novelty(piece) for piece in self._pieces(features_of, validation)])
        self.novelty_surprise.fit(novelties)
        left_out = parts(len(known), len(self.alarms))
        by_trees = self._grow(gradients, validation, left_out, seed) if self.trees else []
        unchosen = FALLBACK if len(known) else BESIDE_MADE_UP if by_trees else WITHOUT_LABELS
        if not len(self.alarms):
            self.weight.fill_(unchosen if weight is None else weight)
            return [], 0, []
        noise = known[:0]
        if gradients.noise is not None:
            with seeded(seed):
                made = [self.standard(gradients.noise(AT_ONCE)) for _ in range(NOISE_ROWS // AT_ONCE)]
            noise = torch.cat(made)
        material = Material(features_of, gradients.train, validation, known, noise)
        history, kept = train_balanced(
            self._pairs(), left_out, material, plan, seed=seed, observe=observe, keep=keep
        )
        tried: list[dict[str, float]] = []
        if any(map(len, left_out)):
            shares = SHARES if len(self._pairs()[0].members) > 1 else (1.0,)
            for share in shares:
                self._set_share(share)
                rows = logits(self._pairs(), features_of, validation)
                found = self._try(rows, by_trees, novelties, known, left_out)
                tried += [one | {"share": share} for one in found]
            if weight is None:
                taken = choose(tried, len(known))
                weight = taken["weight"]
            else:  # the left-out ones decide the share of gradients alone
                taken = max((one for one in tried if not one["weight"]), key=quality)
            self._set_share(taken["share"])
        self.alarm_surprise.fit(logits(self._pairs(), features_of, validation).mean(0))
        self.weight.fill_(unchosen if weight is None else weight)
        return history, kept, tried

    @torch.no_grad()
    def _grow(
        self, gradients: Gradients, validation: Tensor, left_out: Sequence[Tensor], seed: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Grow the forest; return, for each network, surprises by the trees that leave out what it does."""

        def columns_of(index: Tensor) -> Tensor:
            return gradients.of(index)[:, self.standard.sizes[0] :].clone()

        normal, known = (
            torch.cat(list(self._pieces(columns_of, index)))
            for index in (gradients.train[:MOST_NORMAL], gradients.known)
        )
        each = math.ceil(self.trees / len(left_out))
        forests = [
            Forest.grow(normal, known[without(len(known), out)], each, seed + i).to(known.device)
            for i, out in enumerate(left_out)
        ]
        found = [
            torch.stack([one(piece) for one in forests]) for piece in self._pieces(columns_of, validation)
        ]
        rows = torch.cat(found, dim=1)
        self.forest, self.forest_surprise = Forest.joined(forests), Surprise()
        self.to(known.device)
        self.forest_surprise.fit(rows.mean(0))
        return [
            surprises(normal_rows, one(known[out]))
            for normal_rows, one, out in zip(rows, forests, left_out, strict=True)
        ]

    @torch.no_grad()
    def _try(
        self,
        rows: Tensor,
        by_trees: Sequence[tuple[Tensor, Tensor]],
        novelties: Tensor,
        known: Tensor,
        left_out: Sequence[Tensor],
    ) -> list[dict[str, float]]:
        learned, novel = [], []
        novelty_of = self.novelty_surprise
        for i, (alarm, out, normal) in enumerate(zip(self._pairs(), left_out, rows, strict=True)):
            found = surprises(normal, alarm(known[out]))
            if by_trees:
                found = (beside(by_trees[i][0], found[0]), beside(by_trees[i][1], found[1]))
            learned.append((found[0].numpy(), found[1].numpy()))
            novel.append(novelty_of(self.novelty(known[out])).cpu().numpy())
        return try_weights(learned, (novelty_of(novelties).cpu().numpy(), novel))

    def grown(self) -> dict[str, int]:
        """Return how many trees and nodes there are in the forest; nothing where there is none."""
        if self.forest is None:
            return {}
        return {"trees": len(self.forest.roots), "nodes": len(self.forest.odds)}

    def _set_share(self, share: float) -> None:
        for alarm in self._pairs():
            alarm.share.fill_(share)

    def _pairs(self) -> list[AlarmPair]:
        return [alarm for alarm in self.alarms if isinstance(alarm, AlarmPair)]

    def _pieces(self, function: Callable[[Tensor], Tensor], index: Tensor) -> Iterator[Tensor]:
        return map(partial(_undisturbed, function), torch.split(index, AT_ONCE))

    def forward(self, entries: Tensor) -> Tensor:
        """Return the scores, (n,) float64, high = anomalous, of gradients and columns, (n, T * k + p)."""
        features = self.standard(entries)
        learned: Tensor | None = None
        if len(self.alarms):
            learned = self.alarm_surprise(torch.stack([alarm(features) for alarm in self.alarms]).mean(0))
        if self.forest is not None and self.forest_surprise is not None:
            trees: Tensor = self.forest_surprise(self.forest(entries[:, self.standard.sizes[0] :]))
            learned = trees if learned is None else beside(trees, learned)
        if learned is not None and not self.weight:  # what counts for nothing is not worked out
            return learned
        novelty: Tensor = self.novelty_surprise(self.novelty(features))
        return novelty if learned is None else learned + self.weight * novelty


def _undisturbed(function: Callable[[Tensor], Tensor], index: Tensor) -> Tensor:
    with torch.no_grad():
        return function(index)
