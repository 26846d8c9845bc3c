"""The command line: ``anograd fit``, ``score`` and the other commands, each in a file of its name."""

import json
import os
import sys

# Before torch loads: threads that spin while they wait make small networks far slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import rich as rich
    import typer as typer

    from anograd.cli.app import app as app
    from anograd.heap import keep_freed_memory
except ImportError as error:
    if error.name not in ("rich", "typer"):
        raise
    raise SystemExit("error: the command line needs typer and rich: pip install 'anograd[cli]'") from error
except KeyboardInterrupt:  # loading takes a moment
    told = json.dumps({"error": "stopped", "kind": "stopped"}) if "--json" in sys.argv else "stopped"
    print(told, file=sys.stderr)
    raise SystemExit(130) from None


def main() -> None:
    """Run the command line."""
    keep_freed_memory()
    app()
