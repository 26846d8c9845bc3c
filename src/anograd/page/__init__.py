"""One self-contained HTML page about rows that a detector has scored: no script, nothing from elsewhere."""

from anograd.page.build import Card as Card
from anograd.page.build import check_needs as check_needs
from anograd.page.build import page as page
from anograd.page.scored import Scored as Scored
from anograd.page.why import Reason as Reason
from anograd.page.why import reasons as reasons
