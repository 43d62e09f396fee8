"""``inferq`` and ``python -m inferq_client``."""

import sys


def run() -> int:
    """Run the command line; without its libraries say in a sentence how to get them."""
    try:
        from inferq_client.cli.app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        print("inferq: the command line needs: pip install 'inferq-client[cli]'", file=sys.stderr)
        return 2
    app(prog_name="inferq")
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
