"""The time loops of recurrent layers, forward and backward, each as one node of the graph.

A loop that autograd records has a dozen nodes a step. Here one node runs the loop on buffers, (t, n, width)
so that a step is contiguous and stays in the cache, and hands back the loss gradient at the preactivations of
all steps, from which every weight's gradient follows by a rule. (2 sigmoid(2 v) - 1 takes a third of the
time of tanh(v) on a CPU, and has hardly a digit of it where v is small.)

All take what to call where their gradient is to be differentiated once more, for which they keep too little;
the input's products for all steps with the bias, (n, t, gates); and the state before the first step, (n, h).
They return the outputs (n, t, h), the state after the last step, and the states before each step (n, t, h),
which carry no gradient. Large buffers cost more than what is done with them, so they are used
again: forward writes over the products, which nobody else may want, and backward over what forward
saved. A second backward through the same graph is therefore refused by autograd. (`z.data`, because autograd
would take writing over a detached view for a change of the graph.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Graph = Any  # autograd's context, which has no public type
Twice = Callable[[], None]
sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input  # (d, sigmoid): d * sigmoid * (1 - sigmoid)
tanh_backward = torch.ops.aten.tanh_backward.grad_input  # (d, tanh): d * (1 - tanh * tanh)


def _once(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """Return a backward pass that nothing differentiates without being told of.

    PyTorch raises an error only where what comes in has a graph; what forward saved then has none.
    """
    plain: Callable[..., tuple[Tensor | None, ...]] = once_differentiable(backward)

    def run(ctx: Graph, *given: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # as under create_graph=True alone
            ctx.twice()
        return plain(ctx, *given)

    return run


class LSTMSteps(torch.autograd.Function):
    """Gates in, forget, cell, out: c = f c + i g, h = o tanh(c)."""

    @staticmethod
    def forward(
        ctx: Graph, twice: Twice, z: Tensor, h: Tensor, c: Tensor, recurrent: Tensor
    ) -> tuple[Tensor, ...]:
        t, width = z.shape[1], h.shape[1]
        gates = z.data.transpose(0, 1)
        hidden, cells = _states(h, t), _states(c, t)
        squashed = torch.empty_like(hidden[1:])  # tanh(c)
        i, f, g, o = gates.chunk(4, 2)
        in_and_forget = gates[:, :, : 2 * width]
        across = recurrent.t()
        steps = _together(gates, in_and_forget, i, f, g, o, squashed, hidden, cells, hidden[1:], cells[1:])
        for gates_s, sigmoids, i_s, f_s, g_s, o_s, squashed_s, h_s, c_s, h_next, c_next in steps:
            torch.addmm(gates_s, h_s, across, out=gates_s)
            sigmoids.sigmoid_()
            torch.tanh(g_s, out=g_s)
            o_s.sigmoid_()
            torch.mul(f_s, c_s, out=c_next).addcmul_(i_s, g_s)
            torch.tanh(c_next, out=squashed_s)
            torch.mul(o_s, squashed_s, out=h_next)
        ctx.twice = twice
        ctx.save_for_backward(gates, cells, squashed, recurrent)
        return _outputs(ctx, hidden, hidden[-1].clone(), cells[-1].clone())

    @staticmethod
    @_once
    def backward(ctx: Graph, dout: Tensor, dh: Tensor, dc: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, squashed, recurrent = ctx.saved_tensors
        width = cells.shape[2]
        dh, dc, room = dh.clone(), dc.clone(), torch.empty_like(gates[0])
        at_i, at_f, at_g, at_o = room.chunk(4, 1)
        at_sigmoids = room[:, : 2 * width]
        i, f, g, o = gates.chunk(4, 2)
        in_and_forget = gates[:, :, : 2 * width]
        steps = _together(dout.transpose(0, 1), gates, in_and_forget, i, f, g, o, squashed, cells)
        for dout_s, gates_s, sigmoids, i_s, f_s, g_s, o_s, squashed_s, c_s in reversed(steps):
            dh.add_(dout_s)
            torch.mul(dh, o_s, out=at_o)
            dc.add_(tanh_backward(at_o, squashed_s, grad_input=at_o))
            torch.mul(dc, g_s, out=at_i)
            torch.mul(dc, c_s, out=at_f)
            torch.mul(dc, i_s, out=at_g)
            torch.mul(dh, squashed_s, out=at_o)
            dc.mul_(f_s)
            # From here on the gates of this step are overwritten by the gradients at them.
            sigmoid_backward(at_sigmoids, sigmoids, grad_input=sigmoids)
            tanh_backward(at_g, g_s, grad_input=g_s)
            sigmoid_backward(at_o, o_s, grad_input=o_s)
            torch.mm(gates_s, recurrent, out=dh)
        return None, _rows_first(gates), dh, dc, None


class GRUSteps(torch.autograd.Function):
    """Gates reset, update, new: n = tanh(z_n + r (zh_n + U_n h)), h = n + u (h - n).

    `zh` is what is added to the recurrent product, its bias repeated: (n, t, 3 h). The gradient at it
    differs from that at `z` in the last third, and is that of the recurrent product.
    """

    @staticmethod
    def forward(
        ctx: Graph, twice: Twice, z: Tensor, zh: Tensor, h: Tensor, recurrent: Tensor
    ) -> tuple[Tensor, ...]:
        t, width = z.shape[1], h.shape[1]
        z = z.data.transpose(0, 1)
        hidden, gates = _states(h, t), z.new_empty(z.shape)
        r, u, product = gates.chunk(3, 2)
        two, two_of_z, new = gates[:, :, : 2 * width], z[:, :, : 2 * width], z[:, :, 2 * width :]
        across = recurrent.t()
        steps = _together(zh.transpose(0, 1), gates, two, two_of_z, r, u, product, new, hidden, hidden[1:])
        for zh_s, gates_s, sigmoids, z_s, r_s, u_s, product_s, new_s, h_s, h_next in steps:
            torch.addmm(zh_s, h_s, across, out=gates_s)
            sigmoids.add_(z_s).sigmoid_()
            new_s.addcmul_(r_s, product_s)
            torch.tanh(new_s, out=new_s)
            torch.lerp(new_s, h_s, u_s, out=h_next)
        ctx.twice = twice
        ctx.save_for_backward(gates, z, hidden, recurrent)
        return _outputs(ctx, hidden, hidden[-1].clone())

    @staticmethod
    @_once
    def backward(ctx: Graph, dout: Tensor, dh: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gates, z, hidden, recurrent = ctx.saved_tensors
        width = hidden.shape[2]
        dh, kept, room = dh.clone(), torch.empty_like(dh), torch.empty_like(gates[0, :, : 2 * width])
        at_r, at_u = room.chunk(2, 1)
        r, u, product = gates.chunk(3, 2)
        two, two_of_z, new = gates[:, :, : 2 * width], z[:, :, : 2 * width], z[:, :, 2 * width :]
        steps = _together(dout.transpose(0, 1), gates, two, two_of_z, r, u, product, new, hidden)
        for dout_s, gates_s, sigmoids, z_s, r_s, u_s, product_s, new_s, h_s in reversed(steps):
            dh.add_(dout_s)
            torch.mul(dh, u_s, out=kept)
            torch.sub(h_s, new_s, out=at_u).mul_(dh)
            tanh_backward(dh.sub_(kept), new_s, grad_input=new_s)
            torch.mul(new_s, product_s, out=at_r)
            torch.mul(new_s, r_s, out=product_s)
            sigmoid_backward(room, sigmoids, grad_input=sigmoids)
            z_s.copy_(sigmoids)
            torch.addmm(kept, gates_s, recurrent, out=dh)
        return None, _rows_first(z), _rows_first(gates), dh, None


class RNNSteps(torch.autograd.Function):
    """One gate: h = tanh(z + U h), or relu."""

    @staticmethod
    def forward(
        ctx: Graph, twice: Twice, z: Tensor, h: Tensor, recurrent: Tensor, relu: bool
    ) -> tuple[Tensor, ...]:
        hidden, across = _states(h, z.shape[1]), recurrent.t()
        for z_s, h_s, h_next in _together(z.transpose(0, 1), hidden, hidden[1:]):
            torch.addmm(z_s, h_s, across, out=h_next)
            if relu:
                h_next.relu_()
            else:
                torch.tanh(h_next, out=h_next)
        ctx.twice = twice
        ctx.save_for_backward(hidden, recurrent)
        ctx.relu = relu
        return _outputs(ctx, hidden, hidden[-1].clone())

    @staticmethod
    @_once
    def backward(ctx: Graph, dout: Tensor, dh: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, recurrent = ctx.saved_tensors
        dh, d = dh.clone(), torch.empty_like(hidden[1:])
        for dout_s, d_s, h_s in reversed(_together(dout.transpose(0, 1), d, hidden[1:])):
            dh.add_(dout_s)
            if ctx.relu:
                torch.mul(dh, h_s > 0, out=d_s)
            else:
                tanh_backward(dh, h_s, grad_input=d_s)
            torch.mm(d_s, recurrent, out=dh)
        return None, _rows_first(d), dh, None, None


def _together(*sequences: Tensor) -> list[tuple[Tensor, ...]]:
    """Return what belongs to each step; states have one more, which is left out."""
    return list(zip(*(sequence.unbind(0) for sequence in sequences), strict=False))


def _states(first: Tensor, t: int) -> Tensor:
    """Return room for a state before, between and after t steps, (t + 1, n, h), with the first filled in."""
    states = first.new_empty(t + 1, *first.shape)
    states[0] = first
    return states


def _outputs(ctx: Graph, hidden: Tensor, *last: Tensor) -> tuple[Tensor, ...]:
    out, before = _rows_first(hidden[1:]), _rows_first(hidden[:-1])
    ctx.mark_non_differentiable(before)
    return (out, *last, before)


def _rows_first(steps: Tensor) -> Tensor:
    # A copy, because a network may write to its layers' outputs, and products of each row's own matrices read
    # memory row by row.
    return steps.transpose(0, 1).clone(memory_format=torch.contiguous_format)
