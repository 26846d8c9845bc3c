"""
Sentences of another topic
==========================

By the gradients of a pretrained sentence encoder.

Four topics of SciPy's documentation, each normal in turn, or your own text, a sentence a line::

    python examples/sentences.py
    python examples/sentences.py --normal mine.txt --new new.txt

The loss needs no label and no training: how far the embedding of a sentence moves when every third of its
words is hidden. The gradient of that loss says how the encoder would change to bear the gaps, and
sentences of one topic ask for similar changes.

What came out, mean AUROC over the four topics with SciPy 1.17.1: the loss alone 0.50, the cosine with the
mean gradient 0.81, the nearest embedding 0.89. So the gradient finds what its loss does not see, but an
encoder that was trained to put like sentences together needs none: its embeddings do better, and adding the
gradient to them makes them worse.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import anograd as ag
import minilm
from anograd.constraint import mean_gradient
from anograd.evaluate import ranking
from anograd.gradients import PerSample
from anograd.represent import cosine
from topics import sentences

# Loss, layers and scores were chosen on other topics of SciPy: special, ndimage, interpolate, integrate, fft.
LAYERS = "encoder.layers.[45].linear*.weight"
TOPICS = {
    "statistics": ("scipy.stats",),
    "signals": ("scipy.signal",),
    "optimisation": ("scipy.optimize",),
    "linear algebra": ("scipy.linalg", "scipy.sparse.linalg"),
}
KNOWN, HELD_OUT = 90, 60  # sentences a topic
BATCH, LENGTH = 32, 32  # rows, tokens
GRADIENT = ("cosine with the mean gradient", "nearest sketched gradient", "length of the gradient")
FORWARD = ("loss", "cosine with the mean embedding", "nearest embedding")
BOTH = "nearest gradient and embedding, ranks added"


def target() -> ag.Target:
    """Return the encoder with its loss and the layers whose gradients are read."""
    return ag.Target.adopt(minilm.Gaps.pretrained(), loss=minilm.missed, layers=LAYERS)


def scores(looked_at: ag.Target, known: Tensor, new: Tensor) -> dict[str, Tensor]:
    """Return scores of new sentences by name, each (n,), high = unlike the known ones.

    Parameters
    ----------
    looked_at : Target
        From `target`.
    known, new : torch.Tensor, (m, t) and (n, t)
        Token numbers; the known sentences are normal.
    """
    mean = mean_gradient(looked_at, known, BATCH)
    near = ag.per_sample(looked_at, known, want=("sketch",))
    far = ag.per_sample(looked_at, new, want=("loss", "norm", "inner", "sketch"), reference=mean)
    at, to = (embeddings(looked_at.module, tokens) for tokens in (known, new))
    found = {
        "cosine with the mean gradient": -cosine(far, mean).mean(1),
        "nearest sketched gradient": nearest(directions(near), directions(far)),
        "length of the gradient": far.norm.clamp_min(1e-12).log().mean(1),
        "loss": far.loss,
        "cosine with the mean embedding": -F.cosine_similarity(to, at.mean(0, keepdim=True)),
        "nearest embedding": nearest(at, to),
    }
    return found | {BOTH: ranks(found["nearest sketched gradient"]) + ranks(found["nearest embedding"])}


def directions(found: PerSample) -> Tensor:
    """Return the sketches, (n, k), those of each parameter at length one: only directions count."""
    each = found.sketch.unflatten(1, (len(found.layers), -1))
    return F.normalize(each, dim=2).flatten(1)


def embeddings(network: minilm.SentenceEncoder, tokens: Tensor) -> Tensor:
    """Return the embeddings at length one, (n, 384)."""
    with torch.no_grad():
        return F.normalize(torch.cat([network.embed(some) for some in tokens.split(BATCH)]), dim=1)


def nearest(known: Tensor, new: Tensor) -> Tensor:
    """Return the distance to the nearest known row, (n,)."""
    return torch.cdist(new, known).amin(1)


def ranks(score: Tensor) -> Tensor:
    """Return the place of each number among all, (n,)."""
    return score.argsort().argsort()


def drawn() -> dict[str, Tensor]:
    """Return token numbers by topic, (`KNOWN` + `HELD_OUT`, t), of sentences that one topic alone has."""
    pools = {topic: {s for name in names for s in sentences(name)} for topic, names in TOPICS.items()}
    times = Counter(s for pool in pools.values() for s in pool)
    own = {topic: sorted(s for s in pool if times[s] == 1) for topic, pool in pools.items()}
    chosen = {topic: random.Random(0).sample(pool, KNOWN + HELD_OUT) for topic, pool in own.items()}
    return {topic: minilm.tokens_of(some, LENGTH) for topic, some in chosen.items()}


def measured() -> dict[str, list[float]]:
    """Return for each score the AUROC with each topic as the normal one, in the order of `TOPICS`."""
    rows, looked_at = drawn(), target()
    found: dict[str, list[float]] = {}
    for normal, some in rows.items():
        held_out = [some[KNOWN:], *(other[KNOWN:] for topic, other in rows.items() if topic != normal)]
        odd = torch.arange(len(TOPICS) * HELD_OUT) >= HELD_OUT
        for name, score in scores(looked_at, some[:KNOWN], torch.cat(held_out)).items():
            found.setdefault(name, []).append(ranking(score.numpy(), odd.numpy())[0])
    return found


def table(found: dict[str, list[float]]) -> str:
    """Return the AUROCs as text, and a sentence on what the gradients add."""
    mean = {name: sum(row) / len(row) for name, row in found.items()}
    lines = [" " * 45 + "".join(f"{topic:>16}" for topic in [*TOPICS, "mean"])]
    for title, names in (("gradient", GRADIENT), ("forward pass alone", FORWARD), ("both", (BOTH,))):
        lines.append(title)
        lines += [
            f"  {name:43}" + "".join(f"{x:16.3f}" for x in [*found[name], mean[name]]) for name in names
        ]
    gradient, forward = (max(names, key=mean.__getitem__) for names in (GRADIENT, FORWARD))
    gain, against = mean[gradient] - mean["loss"], mean[gradient] - mean[forward]
    best = max(mean[gradient], mean[BOTH]) - mean[forward]
    return "\n".join(lines) + (
        "\n\nAUROC: how often a sentence of another topic scores above one of the normal topic. The best"
        f"\nscore of the gradients ('{gradient}') is {gain:+.3f} from the loss they come from, and "
        f"{against:+.3f} from\nthe best of the forward pass ('{forward}'). "
        f"Here gradients add {'something' if best > 0 else 'nothing'} to the embeddings."
    )


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> None:
    """Print the table, or the new sentences of one's own text, the oddest first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--normal", type=Path, help="normal text, a sentence a line; a hundred or more")
    parser.add_argument("--new", type=Path, help="text to be looked at, a sentence a line")
    chosen = parser.parse_args()
    if (chosen.normal is None) != (chosen.new is None):
        parser.error("--normal and --new go together")
    if line := minilm.missing():
        sys.exit(f"this example needs a pretrained encoder (90 MB): {line}")
    if chosen.normal is not None:
        new = lines_of(chosen.new)
        tokens = [minilm.tokens_of(some, LENGTH) for some in (lines_of(chosen.normal), new)]
        found = scores(target(), *tokens)
        by_gradient, by_embedding = found["cosine with the mean gradient"], found["nearest embedding"]
        print("embedding  gradient  sentence; high = odd in both columns, the oddest embedding first")
        for i in by_embedding.argsort(descending=True).tolist():
            print(f"{by_embedding[i]:9.3f}  {by_gradient[i]:8.3f}  {new[i]}")
        return
    start = time.perf_counter()
    print(table(measured()))
    print(f"\n{time.perf_counter() - start:.0f} s. On your own text, a sentence a line in each file:")
    print("python examples/sentences.py --normal mine.txt --new new.txt")


if __name__ == "__main__":
    main()
