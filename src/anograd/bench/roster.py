"""Who can take part: the rivals that come with anograd, and those of a module of the reader's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module

from anograd.bench.entrants import Entrant


@cache
def roster(module: str | None = None) -> Mapping[str, Entrant]:
    """Return all entrants by name.

    Parameters
    ----------
    module : str, optional
        A module with a mapping ``ENTRANTS`` of its own, which is added to ours under other names.

    Raises
    ------
    ValueError
        No such module, or one without ``ENTRANTS``, or with one of a name that is taken.
    """
    from anograd.bench.rivals import ENTRANTS

    if module is None:
        return ENTRANTS
    try:
        with redirect_stdout(sys.stderr):  # stdout is for what the run says
            own = import_module(module).ENTRANTS
    except (Exception, SystemExit) as error:  # whatever a module of the user's own does while it is read
        raise ValueError(
            f"entrants = {module!r}: a module that can be imported and has ENTRANTS, a dict of "
            f"anograd.bench.entrants.Entrant by name, is wanted; {type(error).__name__}: {error}"
        ) from error
    if not isinstance(own, dict) or not all(isinstance(one, Entrant) for one in own.values()):
        raise ValueError(
            f"entrants = {module!r}: its ENTRANTS is no dict of anograd.bench.entrants.Entrant by name"
        )
    if taken := sorted(set(own) & set(ENTRANTS)):
        raise ValueError(
            f"entrants = {module!r}: its ENTRANTS has {', '.join(map(repr, taken))}, which is taken by a "
            "detector that is here: results are known by names, so call it something else"
        )
    return {**ENTRANTS, **own}
