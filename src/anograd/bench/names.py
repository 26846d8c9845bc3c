"""What to say where a name is not known: the nearest ones."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(what: str, name: str, names: Iterable[str], more: str = "") -> str:
    """Return the message for a name that is not among those known.

    Parameters
    ----------
    what : str
        What is called so, such as "detector".
    name : str
        What was given.
    names : iterable of str
        Those known.
    more : str
        Where they are listed, if there are many.

    Examples
    --------
    >>> unknown("data set", "mnis", ["mnist", "cifar10"])
    "there is no data set 'mnis'; did you mean 'mnist'? wanted is one of: cifar10, mnist"
    """
    known = sorted(names)
    near = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    ending = more or f"wanted is one of: {', '.join(known)}"
    return f"there is no {what} {name!r}{hint or ';'} {ending}"
