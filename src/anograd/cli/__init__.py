"""The command line: ``anograd fit``, ``score`` and the other commands, each in a file of its name."""

import os

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
    raise SystemExit(130) from None

command(app, fit.fit, "fit")
command(app, score.score, "score")
command(app, explain.explain, "explain")
command(app, calibrate.calibrate, "calibrate")
command(app, evaluate.evaluate, "evaluate")
command(app, report_.report_, "report")
command(app, info.info, "info", config=False)
command(app, export.export, "export")
command(app, serve.serve, "serve", json=False)
command(app, demo.demo, "demo", config=False)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line."""
    app()
