"""``python -m deploy.containers images``, ``compose`` and ``remove``."""

import time
from typing import Final

import typer

from deploy.containers import images, stack, stand_ins
from deploy.containers.podman import has_image, need
from inferq.errors import InferqError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Images and docker-compose.yml, under podman.")

_BEGAN: Final = time.monotonic()


def say(line: str) -> None:
    """Print a line, with the seconds since the start."""
    typer.echo(f"{time.monotonic() - _BEGAN:6.0f} s  {line}")


@app.command("images")
def images_command() -> None:
    """Build the images on stand-ins for their bases, and run each by itself."""
    need("podman", "debootstrap")
    images.build(say)
    images.check_runs(say)


@app.command("compose")
def compose_command() -> None:
    """Bring docker-compose.yml up, use it, and kill it service by service."""
    need("podman", "podman-compose", "debootstrap")
    if not all(map(has_image, images.IMAGES)):
        images.build(say)
    stand_ins.make_servers()
    stack.check(say)


@app.command("remove")
def remove_command() -> None:
    """Remove the stand-ins, and the images that were built on them."""
    need("podman")
    stand_ins.remove()


def run() -> int:
    """Run a command; what an operator can mend is one sentence and exit status 1."""
    try:
        app(standalone_mode=False)
    except InferqError as error:
        typer.echo(f"inferq: {error}", err=True)
        return 1
    except typer.Exit as done:
        return done.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
