# For run_all.sh, which sources it: an interpreter that has the requirements, and a look at all options before it works.

fail() { # MESSAGE
  echo "error: $1" >&2
  exit 2
}

set_up() { # FILE...: prints the path of an interpreter that has the requirements in the files
  local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}} own="$root/.venv/bin/python" file
  local -a wanted=()
  if [[ -n $active ]] && has_requirements "$active/bin/python" "$@"; then
    echo "$active/bin/python"
    return
  fi
  if ! has_requirements "$own" "$@"; then
    echo "setting up $root/.venv (once; some minutes)" >&2
    "$own" -m pip --version >/dev/null 2>&1 || "$(find_python)" -m venv --clear "$root/.venv" >&2
    for file in "$@"; do wanted+=(-r "$file"); done
    "$own" -m pip install --quiet --disable-pip-version-check -c "$root/tests/requirements.lock" "${wanted[@]}" >&2
    has_requirements "$own" "$@" || fail "$root/.venv lacks a package of $* after installation"
  fi
  echo "$own"
}

has_requirements() { # PYTHON FILE...: in a fifth of a second
  "$1" - "${@:2}" 2>/dev/null <<'END'
import sys
from importlib.metadata import version
from packaging.requirements import Requirement

for path in sys.argv[1:]:
    for line in open(path):
        text = line.partition("#")[0].strip()
        if text:
            requirement = Requirement(text)
            if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                sys.exit(1)
END
}

find_python() { # the first Python that is new enough
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer found"
}

check_options() { # == STAGE OPTION... == STAGE OPTION...: so that a mistyped option ends the run now, not after hours
  "$python" -P - "$@" <<'END'
import itertools
import sys
from importlib import import_module
from importlib.util import find_spec

from preprocess.cache import stage


def check():
    for is_mark, words in itertools.groupby(sys.argv[1:], "==".__eq__):
        if not is_mark:
            name, *options = words
            module = import_module(f"{name}.__main__" if find_spec(name).submodule_search_locations else name)
            try:
                module.main([*options, "--check-options"])
            except SystemExit as end:
                if end.code:
                    raise


stage.run(check)
END
}
