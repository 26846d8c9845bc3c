"""What a detector says about itself: its paper, and how it differs. Docs, ``info`` and tests read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A detector's source, as data.

    Attributes
    ----------
    title, authors, venue, arxiv : str
        Where the method was published.
    year : int
    differences : tuple of str
        Where the defaults, or what is offered beyond them, part ways with the paper.
    limits : tuple of str
        When not to use it.
    """

    title: str
    authors: str
    venue: str
    year: int
    arxiv: str
    differences: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    def cite(self) -> str:
        """Return a one-line citation."""
        return f"{self.authors}. {self.title}. {self.venue}, {self.year}. arXiv:{self.arxiv}"
