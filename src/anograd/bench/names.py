"""What to say where a name is not known: the nearest ones."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(given: str | int, names: Iterable[str], what: str, more: str = "") -> ValueError:
    """Return the error of a name that is not among those known.

    Parameters
    ----------
    given : str or int
    names : iterable of str
        Those known.
    what : str
        What is called so, such as "detector".
    more : str
        Where the names are listed, if there are many.

    Examples
    --------
    >>> print(unknown("mnis", ["mnist", "cifar10"], "data set"))
    there is no data set 'mnis'; did you mean 'mnist'? wanted is one of: cifar10, mnist
    """
    known = sorted(map(str, names))
    near = get_close_matches(str(given).lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    wanted = more or f"wanted is one of: {', '.join(known) or 'none'}"
    return ValueError(f"there is no {what} {given!r}; {hint}{wanted}")
