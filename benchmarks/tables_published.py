"""The table of networks that GradCon's paper compares its own with."""

from __future__ import annotations

import published_networks
from table_parts import latest, markdown, origin


def counted() -> str:
    """Weights of each network, and how many times GradCon's autoencoder that is."""
    lines = latest(published_networks.NAME, ("network",))
    rows = [[line["network"], f"{line['weights']:,}", f"{line['times_cae']:.2f}"] for line in lines]
    return "\n\n".join([markdown(("network, grey images", "weights", "times the CAE"), rows), origin(lines)])


TABLES = {"published-networks": counted}
