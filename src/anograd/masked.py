"""A network that tells the columns it is not shown from those it is: how columns hang together, learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, DEPTH = 256, 2
FEW = 16  # values, each of which has a cell of its own
TAIL = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)  # shares of rows beyond a cell's edge, at either end
INNER = 10  # cells between the tails, of as many rows each
PARTS, ROUNDS = 3, 2  # into how many parts columns are dealt, each hidden in turn, and how often
LEAST_LOGIT = -80.0  # below a question's largest: exp of it is a number in single precision, too
LEAST_HIDDEN, MOST_HIDDEN = 0.1, 0.9  # share of columns hidden in training


class MaskedColumns(nn.Module):
    """Tells in which of some cells each hidden column's value lies, from the columns that are shown.

    A column's values are cut into cells: each value its own where there are few, else by quantiles that are
    closer together towards both ends, and one cell for what lies below all rows seen, one for above. Which
    columns are hidden is drawn anew for every row in training; afterwards columns are dealt into three parts,
    twice, and each part is hidden in turn: six questions a row, and every column is asked for twice.
    ``head`` is the last layer, a logit a cell.

    Parameters
    ----------
    cells : sequence of int
        Cells of each column.

    References
    ----------
    Devlin et al.: BERT: Pre-training of deep bidirectional transformers. NAACL 2019, arXiv:1810.04805, for
    words. Yin et al.: MCM: Masked cell modeling for anomaly detection in tabular data. ICLR 2024, for cells
    of tables, with learned masks and reconstruction errors.
    """

    column: Tensor
    places: Tensor
    lower: Tensor
    upper: Tensor
    centre: Tensor
    hidden: Tensor

    def __init__(self, cells: Sequence[int]) -> None:
        super().__init__()
        columns, total = len(cells), sum(cells)
        self.register_buffer("column", torch.zeros(total, dtype=torch.int64))
        for name in ("lower", "upper", "centre"):
            self.register_buffer(name, torch.zeros(total))
        self.register_buffer("places", torch.zeros(columns, max(cells), dtype=torch.int64))
        self.register_buffer("hidden", torch.zeros(ROUNDS * min(PARTS, columns), columns))
        # Where a saved state is to come they would have no content, and torch loads a lot to make them.
        if not self.column.is_meta:
            owners = [torch.full((count,), i) for i, count in enumerate(cells)]
            self.column, self.places, self.hidden = torch.cat(owners), _places(cells), _dealt(columns)
        self.first = nn.Linear(total + columns, WIDTH)
        blocks = [
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(DEPTH)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, total)

    @torch.no_grad()
    def start_at(self, rows: Tensor, edges: Sequence[Tensor]) -> None:
        """Lay the cells between `edges` (`edges_of`), and their centres at their mean in rows (n, p)."""
        end = torch.tensor([torch.inf])
        self.lower.copy_(torch.cat([torch.cat([-end, one]) for one in edges]))
        self.upper.copy_(torch.cat([torch.cat([one, end]) for one in edges]))
        inside = self._cells(rows)
        counts, sums = inside.sum(0), (inside * rows[:, self.column]).sum(0)
        nearest = torch.where(self.lower.isinf(), self.upper, self.lower)
        self.centre.copy_(torch.where(counts > 0, sums / counts.clamp_min(1), nearest))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is expected (n, p), log probabilities of what is there (n, q, p), and what was hidden.

        Both of the latter are for each of q questions; hidden is 1 for what was asked for, (n, q, p).
        """
        hidden = self._drawn(x) if self.training else self.hidden.expand(len(x), -1, -1)
        there = self._cells(x).unsqueeze(1)
        h = self.first(torch.cat([there * (1 - hidden.index_select(2, self.column)), hidden], dim=2))
        for block in self.blocks:
            h = h + block(h)
        logits = self.head(self.norm(h))
        logits = (logits - logits.detach().amax(2, keepdim=True)).clamp_min(LEAST_LOGIT)
        powers = logits.exp()
        sums = self._summed(powers)
        told = self._summed(logits * there) - sums.log()
        expected = self._summed(powers * self.centre) / sums
        return (expected * hidden).sum(1) / hidden.sum(1).clamp_min(1), told, hidden

    def loss(self, output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        """Return each row's mean surprise at a hidden column's value, (n,), in nats, high = not foreseen."""
        _, told, hidden = output
        return -(told * hidden).sum((1, 2)) / hidden.sum((1, 2))

    def _cells(self, x: Tensor) -> Tensor:
        """Return 1 for the cells that values lie in, 0 for others, (n, cells of all columns)."""
        values = x[:, self.column]
        return ((values >= self.lower) & (values < self.upper)).to(x.dtype)

    def _summed(self, values: Tensor) -> Tensor:
        """Return the sum over each column's cells, (n, q, p), of values (n, q, cells of all columns)."""
        found = F.pad(values, (0, 1)).index_select(2, self.places.flatten())
        return found.view(*values.shape[:2], *self.places.shape).sum(3)

    def _drawn(self, x: Tensor) -> Tensor:
        """Return which columns are hidden, one question a row, (n, 1, p), at least one of them."""
        n, p = x.shape
        share = LEAST_HIDDEN + (MOST_HIDDEN - LEAST_HIDDEN) * torch.rand(n, 1)
        order = torch.rand(n, p)  # drawn on the CPU, where training seeds the generator
        most = torch.maximum(share, order.amin(1, keepdim=True))
        return (order <= most).to(x).unsqueeze(1)


def edges_of(rows: Tensor) -> list[Tensor]:
    """Return between which values the cells of each column lie, ascending; rows are (n, p).

    The first edge is a column's least value, the last lies just above its largest.

    Examples
    --------
    >>> [one.tolist() for one in edges_of(torch.tensor([[0.0], [1.0], [3.0], [1.0]]))]
    [[0.0, 0.5, 2.0, 3.000000238418579]]
    """
    return [_edges(column) for column in rows.T.contiguous().sort(dim=1).values]


def _edges(ascending: Tensor) -> Tensor:
    least, most = ascending[:1], ascending[-1:]
    values: Tensor = torch.unique_consecutive(ascending)
    if len(values) <= FEW:
        middle = (values[1:] + values[:-1]) / 2
        between = torch.where(middle > values[:-1], middle, values[1:])  # which rounding may make equal
    else:
        tail = torch.tensor(TAIL)
        shares = torch.cat([tail, torch.linspace(0, 1, INNER + 1)[1:-1], 1 - tail])
        between = torch.unique(ascending[(shares * len(ascending)).long()])
        between = between[between > least]
    return torch.cat([least, between, torch.nextafter(most, torch.full_like(most, torch.inf))])


def _places(cells: Sequence[int]) -> Tensor:
    """Return which cells are each column's, (p, most cells); where it has fewer, one past the last."""
    counts = torch.cat([torch.full((1, 1), count) for count in cells])
    within = torch.arange(max(cells))
    return torch.where(within < counts, counts.cumsum(0) - counts + within, sum(cells))


def _dealt(columns: int) -> Tensor:
    """Return which columns each question hides, (q, p): all of them, in parts, round by round."""
    rounds = [torch.randperm(columns).tensor_split(min(PARTS, columns)) for _ in range(ROUNDS)]
    return torch.stack([torch.zeros(columns).index_fill(0, part, 1) for parts in rounds for part in parts])
