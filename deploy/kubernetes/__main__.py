"""Writes what is made from the rest of the repository; with ``--check`` it only says what is not current."""

import sys

from deploy.kubernetes.rules import written
from deploy.local.child import ROOT


def main() -> int:
    """Write the files; with ``--check`` return 1 when one is not current."""
    stale = [path for path, text in written().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)} is not current: python -m deploy.kubernetes")
        else:
            path.write_text(written()[path], encoding="utf-8")
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
