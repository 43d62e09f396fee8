#!/usr/bin/env bash
# Writes docs/licences.md: the licence of each package that the images install. `make licences` calls it.
# pip-licenses reads what is installed in the environment that $1 is the Python of.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
names=$(grep -ohE '^[A-Za-z0-9_.-]+(==)' deploy/locks/{base,worker-cpu,worker-gpu}.txt | tr -d = | sort -u)
# Locked for the oldest Python 3.11, needed by it alone.
"$python" -m pip install --quiet --no-deps "$(grep -oE '^async-timeout==[0-9.]+' deploy/locks/base.txt)"
work=$(mktemp)
trap 'rm -f "$work"' EXIT
cat > "$work" <<'HEAD'
# Licences

Written by `make licences`: what the images install besides Python, Debian and, for a GPU, vLLM's own image. inferq itself
is under the [MIT licence](../LICENSE). Versions and hashes: `deploy/locks/`.

HEAD
# Versions are in the locks; here they would change with every update.
# shellcheck disable=SC2086
pip-licenses --python "$python" --packages $names --no-version --with-system --format=csv | "$python" -c '
import csv, sys
rows = list(csv.reader(sys.stdin))[1:]
print("| package | licence |\n|---|---|")
for name, licence in sorted(rows, key=lambda row: row[0].lower()):
    # Some give the whole text instead of its name.
    short = licence.splitlines()[0].strip()[:80]
    named = short not in ("", "UNKNOWN")
    print("|", name, "|", short if named else "named in its file LICENSE alone", "|")
' >> "$work"
cp "$work" docs/licences.md
