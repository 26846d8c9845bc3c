"""The command line: ``anograd fit``, ``score`` and the other commands, each in a file of its name."""

import json
import os
import sys
from collections.abc import Callable

# Before torch loads: threads that spin while they wait make small networks far slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import rich as rich
    import typer as typer

    from anograd.cli import (
        bench,
        calibrate,
        demo,
        evaluate,
        explain,
        export,
        fit,
        info,
        report_,
        score,
        serve,
    )
    from anograd.cli.app import app as app
    from anograd.cli.config import command
except ImportError as error:
    if error.name not in ("rich", "typer"):
        raise
    raise SystemExit("error: the command line needs typer and rich: pip install 'anograd[cli]'") from error
except KeyboardInterrupt:  # loading takes a second or two
    told = json.dumps({"error": "stopped", "kind": "stopped"}) if "--json" in sys.argv else "stopped"
    print(told, file=sys.stderr)
    raise SystemExit(130) from None

FUNCTIONS: dict[str, Callable[..., None]] = {
    "fit": fit.fit, "score": score.score, "explain": explain.explain, "calibrate": calibrate.calibrate,
    "evaluate": evaluate.evaluate, "report": report_.report_, "serve": serve.serve, "info": info.info,
    "export": export.export, "demo": demo.demo,
}  # fmt: skip
for name, function in FUNCTIONS.items():
    command(app, function, name, config=name not in ("info", "demo"), json=name != "serve")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line."""
    app()
