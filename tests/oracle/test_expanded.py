"""Attention, recurrent layers and shared weights against ``vmap(grad)`` or a backward pass a row: to 1e-9."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.test_gradients import CLOSE, SEEDS, sketch_of, squared
from torch import Tensor, nn

from anograd import Sketch, Target, per_sample, plan
from anograd.gradients.fallback import row_gradients
from anograd.gradients.tape import recording

KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


def agrees_with_rows(
    module: nn.Module, x: Tensor, *, layers: str | list[str] = "*", by: str = "rule", size: int = 6
) -> None:
    """All quantities, each by its own way, against one backward pass a row through torch's kernels."""
    target = Target.adopt(module.double(), loss=squared, layers=layers)
    assert {one.by for one in plan(target, x).served} == {by}, str(plan(target, x))
    oracle = row_gradients(target, x, target.layers)
    reference = {name: torch.randn_like(p) for name, p in target.parameters().items()}
    sketch = Sketch(size=size, seed=3)
    expected = {
        "full": torch.cat([oracle[name].flatten(1) for name in target.layers], 1),
        "inner": torch.stack(
            [oracle[name].flatten(1) @ reference[name].flatten() for name in target.layers], 1
        ),
        "sketch": torch.cat([sketch_of(sketch, name, oracle[name]) for name in target.layers], 1),
    }
    square = torch.stack([oracle[name].flatten(1).square().sum(1) for name in target.layers], 1)
    for want in (("full", "norm"), ("norm", "inner", "sketch"), ("inner", "sketch"), ("norm",)):
        found = per_sample(target, x, want, reference=reference, sketch=sketch)
        for name in want:
            if name == "norm":
                torch.testing.assert_close(found.norm.square(), square, **CLOSE)
            else:
                torch.testing.assert_close(getattr(found, name), expected[name], **CLOSE)


class Outputs(nn.Module):
    """A layer, and everything it returns as one tensor with the rows first."""

    def __init__(self, layer: nn.Module, batch_first: bool, **named: Any) -> None:
        super().__init__()
        self.layer, self.batch_first, self.named = layer, batch_first, named

    def rows_first(self, x: Tensor) -> Tensor:
        return x if self.batch_first else x.transpose(0, 1)

    def call(self, x: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        output, *others = self.call(self.rows_first(x))
        return torch.cat([self.rows_first(output).flatten(1), *(one.flatten(1) for one in others)], 1)


class Recurrent(Outputs):
    """Starts from states that depend on the row where `start` says so."""

    def __init__(self, layer: nn.RNNBase, batch_first: bool, start: bool) -> None:
        super().__init__(layer, batch_first)
        self.start = start

    def call(self, x: Tensor) -> Any:
        state = None
        if self.start:
            n = x.shape[0 if self.batch_first else 1]
            levels = self.layer.num_layers * (2 if self.layer.bidirectional else 1)
            rows = x.mean((1 if self.batch_first else 0, 2)).reshape(1, n, 1)
            state = torch.linspace(-1, 1, levels).double().reshape(-1, 1, 1) * rows
            state = state.expand(-1, -1, self.layer.hidden_size).contiguous()
            state = (state, state.sin()) if isinstance(self.layer, nn.LSTM) else state
        output, last = self.layer(x, state)
        last = last if isinstance(last, tuple) else (last,)
        return output, *(one.transpose(0, 1) for one in last)


@st.composite
def recurrent(draw: st.DrawFn) -> tuple[Recurrent, Tensor]:
    torch.manual_seed(draw(SEEDS))
    kind = draw(st.sampled_from([*KINDS, "relu"]))
    options: dict[str, Any] = {"nonlinearity": "relu"} if kind == "relu" else {}
    first = draw(st.booleans())
    layer = KINDS.get(kind, nn.RNN)(
        draw(st.integers(1, 4)), draw(st.integers(1, 5)), num_layers=draw(st.integers(1, 2)),
        bias=draw(st.booleans()), batch_first=first, bidirectional=draw(st.booleans()), **options,
    )  # fmt: skip
    x = torch.randn(draw(st.integers(1, 4)), draw(st.integers(1, 5)), layer.input_size, dtype=torch.float64)
    return Recurrent(layer.double(), first, draw(st.booleans())), x


@given(drawn=recurrent(), size=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_recurrent_layers(drawn: tuple[Recurrent, Tensor], size: int) -> None:
    agrees_with_rows(*drawn, size=size)


@given(drawn=recurrent(), data=st.data())
@settings(max_examples=30, deadline=None)
def test_some_parameters_of_a_recurrent_layer(drawn: tuple[Recurrent, Tensor], data: st.DataObject) -> None:
    names = [name for name, _ in drawn[0].named_parameters()]
    agrees_with_rows(*drawn, layers=data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))


class Attention(Outputs):
    """Self-attention under masks, with its weights returned or not."""

    def call(self, x: Tensor) -> Any:
        named = dict(self.named)
        t = x.shape[1 if self.batch_first else 0]
        n = x.shape[0 if self.batch_first else 1]
        mask = torch.ones(t, t, dtype=torch.bool).triu(1)
        if named.pop("causal"):
            named["attn_mask"] = mask
        if named.pop("floats"):
            named["attn_mask"] = torch.zeros(t, t, dtype=torch.float64).masked_fill(mask, -3)
        if named.pop("by_row"):
            named["attn_mask"] = torch.zeros(n * self.layer.num_heads, t, t, dtype=torch.float64) - 2 * mask
        if named.pop("padding"):
            padded = torch.zeros(n, t, dtype=torch.bool)
            padded[:, 1:] = (x if self.batch_first else x.transpose(0, 1))[:, 1:, 0] > 0.5
            float_mask = named.get("attn_mask", padded).dtype != torch.bool
            named["key_padding_mask"] = padded.double() * -4 if float_mask else padded
        output, weights = self.layer(x, x, x, **named)
        return (output,) if weights is None else (output, weights)


@st.composite
def attention(draw: st.DrawFn) -> tuple[Attention, Tensor]:
    torch.manual_seed(draw(SEEDS))
    heads, first = draw(st.integers(1, 3)), draw(st.booleans())
    layer = nn.MultiheadAttention(
        heads * draw(st.integers(1, 3)), heads, bias=draw(st.booleans()), batch_first=first
    )
    for p in layer.parameters():
        nn.init.normal_(p)
    mask = draw(st.sampled_from(["none", "causal", "hint", "floats", "by_row"]))
    named = {
        "causal": mask in ("causal", "hint"),
        "floats": mask == "floats",
        "by_row": mask == "by_row",
        "is_causal": mask == "hint",
        "padding": draw(st.booleans()),
        "need_weights": draw(st.booleans()),
        "average_attn_weights": draw(st.booleans()),
    }
    x = torch.randn(draw(st.integers(1, 4)), draw(st.integers(1, 5)), layer.embed_dim, dtype=torch.float64)
    return Attention(layer.double(), first, **named), x


@given(drawn=attention(), size=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_attention(drawn: tuple[Attention, Tensor], size: int) -> None:
    agrees_with_rows(*drawn, size=size)


@given(drawn=st.one_of(attention(), recurrent()))
@settings(max_examples=60, deadline=None)
def test_expanded_layers_give_what_the_module_gives(drawn: tuple[Outputs, Tensor]) -> None:
    net, x = drawn
    seen: list[Tensor] = []

    def keep(output: Tensor, x: Tensor) -> Tensor:
        seen.append(output.detach())
        return output.flatten(1).sum(1)

    with torch.no_grad():
        expected = net(x)
    target = Target.adopt(net, loss=keep)
    with recording(target, x, ["layer"], target.layers) as tape:
        assert {call.part for call in tape.calls} != set()
    torch.testing.assert_close(seen[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chosen", ["*", "*in_proj*", "*out_proj*", "layers.1.*", "layers.1.linear1.weight"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoders(chosen: str, norm_first: bool) -> None:
    """Padded too, where the fused kernels would take another way through the network."""
    torch.manual_seed(0)

    class Padded(nn.TransformerEncoder):
        def forward(self, x: Tensor) -> Tensor:
            padded = torch.zeros(x.shape[:2], dtype=torch.bool)
            padded[:, -1] = x[:, 0, 0] > 0
            return super().forward(x, src_key_padding_mask=padded)

    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=norm_first, dropout=0.5)
    for kind in (Padded, nn.TransformerEncoder):
        net = kind(layer, 2, enable_nested_tensor=kind is Padded and not norm_first)
        agrees_with_rows(net, torch.randn(5, 3, 4).double(), layers=chosen)


class TiedTable(nn.Module):
    """Words in, logits of words out, by one table; both may be used more than once."""

    def __init__(self, words: int, width: int, twice: bool, look_ups: int) -> None:
        super().__init__()
        self.table, self.logits = nn.Embedding(words, width), nn.Linear(width, words, bias=False)
        self.logits.weight = self.table.weight
        self.twice, self.look_ups = twice, look_ups

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.table(x)
        for _ in range(self.look_ups - 1):
            hidden = hidden + self.table(x.flip(1)).sin()
        logits = self.logits(hidden.tanh())
        return logits + self.logits(hidden.cos()) if self.twice else logits


@given(n=st.integers(1, 3), words=st.integers(1, 60), width=st.integers(1, 6), t=st.integers(1, 4),
       twice=st.booleans(), look_ups=st.integers(1, 2), size=st.integers(1, 30), seed=SEEDS)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_table_tied_to_an_output(
    n: int, words: int, width: int, t: int, twice: bool, look_ups: int, size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    agrees_with_rows(TiedTable(words, width, twice, look_ups), torch.randint(words, (n, t)), size=size)


def test_a_tied_table_is_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from anograd.gradients.rules import Lookup, Outer

    def built(self: object) -> Tensor:
        raise AssertionError(f"{type(self).__name__} was built")

    target = Target.adopt(TiedTable(3000, 8, False, 1), loss=squared)
    reference = {name: torch.ones_like(p) for name, p in target.parameters().items()}
    for kind in (Lookup, Outer):
        monkeypatch.setattr(kind, "full", built)
    per_sample(target, torch.randint(3000, (4, 5)), ("norm", "inner", "sketch"), reference=reference)
    with pytest.raises(AssertionError, match="was built"):
        per_sample(target, torch.randint(3000, (4, 5)), ("full",))


@given(n=st.integers(1, 3), width=st.integers(1, 12), t=st.integers(1, 4), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_two_layers_with_one_weight(n: int, width: int, t: int, seed: int) -> None:
    torch.manual_seed(seed)
    one, other = nn.Linear(width, width), nn.Linear(width, width)
    other.weight = one.weight
    agrees_with_rows(nn.Sequential(one, nn.Tanh(), other), torch.randn(n, t, width, dtype=torch.float64))


@given(n=st.integers(1, 3), groups=st.integers(1, 2), channels=st.integers(1, 3), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_convolution_called_twice(n: int, groups: int, channels: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Conv1d(groups * channels, groups * channels, 3, padding=1, groups=groups)
    x = torch.randn(n, groups * channels, 2, dtype=torch.float64)
    agrees_with_rows(nn.Sequential(layer, nn.Tanh(), layer), x)


class Crossed(nn.Module):
    """Attention to something else than the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x.flip(1), x.flip(1))[0]


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, [4] * len(x), batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0]


class Itself(nn.Module):
    def __init__(self, **named: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **named)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize(
    ("net", "shape", "why"),
    [
        (nn.LSTM(3, 4, batch_first=True, proj_size=2), (5, 6, 3), "no rule for this layer|vmap:"),
        (Packed(), (5, 6, 3), "packed sequence"),
        (Crossed(), (5, 6, 4), "attention to another tensor than the queries"),
        (Itself(add_bias_kv=True), (5, 6, 4), "no rule for this layer|add_bias_kv"),
        (Itself(add_zero_attn=True), (5, 6, 4), "no rule for this layer|add_zero_attn"),
        (Itself(kdim=4, vdim=4), (5, 6, 4), ""),
        (nn.TransformerDecoderLayer(4, 2, 8, batch_first=True), (5, 6, 4), "attention to another tensor"),
    ],
    ids=["projected lstm", "packed", "cross-attention", "bias_kv", "zero_attn", "kdim", "decoder"],
)
def test_what_no_rule_serves_falls_back(net: nn.Module, shape: tuple[int, ...], why: str) -> None:
    """Against a plain loop of one ordinary backward pass a row.

    Whether a recurrent layer takes ``vmap`` depends on dtype and torch version; the numbers must not.
    """
    if isinstance(net, nn.TransformerDecoderLayer):

        class Decoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = net

            def forward(self, x: Tensor) -> Tensor:
                return self.layer(x, x.sin())

        net = Decoder()
    torch.manual_seed(0)
    net = net.double().eval()
    x = torch.randn(shape).double()

    def loss(output: Tensor | tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        return squared(output[0] if isinstance(output, tuple) else output, x)

    target = Target.adopt(net, loss=loss)
    by = {one.by for one in plan(target, x).served}
    if why:
        assert by & {"vmap", "row by row"}
        assert re.search(why, str(plan(target, x)))
    else:  # what looks like a hard case and is the ordinary one
        assert by == {"rule"}
    rows = []
    for row in x.split(1):
        gradients = torch.autograd.grad(loss(net(row), row).sum(), list(net.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    torch.testing.assert_close(per_sample(target, x, ("full",)).full, torch.stack(rows), **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers_keep_their_digits_on_small_inputs(kind: str) -> None:
    torch.manual_seed(0)
    layer = KINDS[kind](3, 4, batch_first=True, bias=False)
    x = 1e-5 * torch.randn(5, 6, 3)
    found = per_sample(Target.adopt(Recurrent(layer, True, False), loss=squared), x, ("loss", "norm"))
    exact = Target.adopt(Recurrent(layer, True, False).double(), loss=squared)
    oracle = row_gradients(exact, x.double(), exact.layers)
    lengths = torch.stack([oracle[name].flatten(1).norm(dim=1) for name in exact.layers], 1)
    torch.testing.assert_close(found.norm.double(), lengths, rtol=1e-5, atol=0)


class StepByStep(nn.Module):
    """A decoder whose layer is called once a step, with one position each."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.out = layer, nn.Linear(layer.hidden_size, 3)

    def forward(self, x: Tensor) -> Tensor:
        given, state, written = x[:, :1], None, []
        for _ in range(x.shape[1]):
            hidden, state = self.layer(given, state)
            given = self.out(hidden)
            written.append(given)
        return torch.cat(written, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_step_by_step(kind: str) -> None:
    """A bias repeated for one row and one step is as long as the bias itself."""
    torch.manual_seed(0)
    net, x = StepByStep(KINDS[kind](3, 5, batch_first=True)), torch.randn(4, 6, 3).double()
    agrees_with_rows(net, x)
    for row in x.split(1):
        agrees_with_rows(net, row)


def test_hooks_on_the_last_layer_of_attention_do_nothing_as_in_pytorch() -> None:
    """Which reads its weights and does not call it."""
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True).double()
    called: list[str] = []

    def hook(layer: nn.Module, given: Any, output: Tensor) -> Tensor:
        called.append("")
        return 3 * output

    net.self_attn.out_proj.register_forward_hook(hook)
    agrees_with_rows(net, torch.randn(4, 5, 6).double())
    assert not called
