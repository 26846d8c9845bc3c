"""Self-attention written out, so that its packed projection can be noted."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from anograd.gradients.expanded import Notes, expands
from anograd.gradients.layers import linear_bias, linear_weight
from anograd.gradients.rules import rule


def _own_parameters(layer: nn.MultiheadAttention) -> str:
    """Say which option of the layer adds products beside the packed one."""
    if layer.in_proj_weight is None:
        return "keys or values of another width"
    if layer.bias_k is not None or layer.bias_v is not None:
        return "add_bias_kv"
    return "add_zero_attn" if layer.add_zero_attn else ""


def _packed(layer: nn.Module) -> bool:
    return not _own_parameters(cast(nn.MultiheadAttention, layer))


def _not_self_attention(
    layer: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> str:
    if query is not key or key is not value:
        return "attention to another tensor than the queries"
    if query.ndim != 3 or query.is_nested:
        return "input without an axis of rows" if query.ndim != 3 else "nested input"
    if is_causal and attn_mask is None:
        return "is_causal without attn_mask"
    return _own_parameters(layer)


@expands(nn.MultiheadAttention, unless=_not_self_attention)
def attend(
    layer: nn.MultiheadAttention,
    notes: Notes,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return what the module returns for query = key = value: its output, and its weights where asked for."""
    x = query if layer.batch_first else query.transpose(0, 1)
    z = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)
    notes.product("", "in_proj", x, z)
    # (n, t, 3 * heads * width) -> three of (n, heads, t, width)
    q, k, v = z.reshape(*z.shape[:2], 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    by_hint = is_causal and key_padding_mask is None and not need_weights
    mask = None if by_hint else _mask(q, attn_mask, key_padding_mask)
    weights = None
    if need_weights:
        products = (q * math.sqrt(1 / q.shape[-1])) @ k.transpose(2, 3)
        weights = (products if mask is None else products + mask).softmax(3)
        heads = weights @ v
    else:
        heads = F.scaled_dot_product_attention(q, k, v, mask, is_causal=by_hint)
    # By its weights, as PyTorch does: what hooks on this layer do counts for nothing.
    joined, last = heads.transpose(1, 2).flatten(2), layer.out_proj
    output = F.linear(joined, last.weight, last.bias)
    notes.product("out_proj", "", joined, output)
    if weights is not None and average_attn_weights:
        weights = weights.mean(1)
    return output if layer.batch_first else output.transpose(0, 1), weights


def _mask(q: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor | None:
    """Return what is added to the products of queries and keys, (n or 1, heads or 1, t or 1, t)."""
    n, heads, t, _ = q.shape
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask.view(-1, heads if attn_mask.ndim == 3 else 1, t, t))
    if key_padding_mask is not None:
        masks.append(key_padding_mask.view(n, 1, 1, t))
    # True keeps a key out; floats are added as they are.
    floats = [q.new_zeros(m.shape).masked_fill(m, -math.inf) if m.dtype == torch.bool else m for m in masks]
    return sum(floats[1:], floats[0]) if floats else None


rule(nn.MultiheadAttention, parameter="in_proj_weight", when=_packed)(linear_weight)
rule(nn.MultiheadAttention, parameter="in_proj_bias", when=_packed)(linear_bias)
rule(NonDynamicallyQuantizableLinear, parameter="weight")(linear_weight)
rule(NonDynamicallyQuantizableLinear, parameter="bias")(linear_bias)
