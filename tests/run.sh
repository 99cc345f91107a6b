#!/usr/bin/env bash
# Set up as run_all.sh does, then run the whole suite. Arguments go to pytest: tests/run.sh -k crop
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/run_all.sh" --python "$root/tests/requirements.txt")
cd "$root"
# In the order of tests/conftest.py, the longest files first; pytest-xdist would begin with those of the most tests.
exec "$python" -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder "$@"
