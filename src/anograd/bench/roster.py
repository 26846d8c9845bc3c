"""Who can take part: the rivals that come with anograd, and those of a module of the reader's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from anograd.bench.entrants import Entrant


@cache
def roster(module: str | None = None) -> Mapping[str, Entrant]:
    """Return all entrants by name.

    Parameters
    ----------
    module : str, optional
        A module with a mapping ``ENTRANTS`` of its own, which is added to ours; its names win.

    Raises
    ------
    ValueError
        No such module, or one without ``ENTRANTS``.
    """
    from anograd.bench.rivals import ENTRANTS

    if module is None:
        return ENTRANTS
    try:
        own = import_module(module).ENTRANTS
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"entrants = {module!r}: a module that can be imported and has ENTRANTS, a dict of "
            f"anograd.bench.entrants.Entrant by name, is wanted; {error}"
        ) from error
    return {**ENTRANTS, **own}
