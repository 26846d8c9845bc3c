"""The command line: ``anograd fit``, ``score`` and the other commands, each in a file of its name."""

import os

# Before torch loads: threads that spin while they wait make small networks far slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import rich as rich
    import typer as typer
except ImportError as error:
    raise SystemExit("error: the command line needs typer and rich: pip install 'anograd[cli]'") from error

from anograd.cli import bench, calibrate, demo, evaluate, explain, fit, info, report_, score, serve
from anograd.cli.app import app as app

for command in (
    fit.fit,
    score.score,
    explain.explain,
    calibrate.calibrate,
    evaluate.evaluate,
    info.info,
    serve.serve,
    demo.demo,
):
    app.command()(command)
app.command("report")(report_.report_)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line."""
    app()
