"""``python -m deploy.local up`` and ``python -m deploy.local demo``."""

import typer
from rich.console import Console

from deploy.local.demo import demo
from deploy.local.supervisor import Stopped
from deploy.local.up import up
from inferq.errors import InferqError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="All of inferq on this machine.")


@app.command("up")
def up_command() -> None:
    """Run the whole stack in the foreground until Ctrl-C."""
    up(Console())


@app.command("demo")
def demo_command() -> None:
    """Start the stack, answer a question, answer it again from the cache, and stop."""
    demo(Console())


def run() -> int:
    """Run a command; what an operator can mend is one sentence and exit status 1."""
    try:
        app(standalone_mode=False)
    except Stopped:
        return 0
    except InferqError as error:
        typer.echo(f"inferq: {error}", err=True)
        return 1
    except typer.Exit as done:
        return done.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
