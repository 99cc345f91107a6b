# For run_all.sh, which sources it: the plan of a run, how a stage is started, and an interpreter that has the requirements.

plan_run() { # OPTION...: sets runs, folds_cache, commands and python; a mistyped option ends the run now, not after hours
  local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}} plan
  local -a requirements
  trap 'end_interrupted $?' INT
  export PYTHONUNBUFFERED=1 PYTHONUTF8=1 # paths may have any characters, whatever the locale
  python=$(find_python "${PIPELINE_PYTHON:-}" "${active:+$active/bin/python}" "$root/.venv/bin/python") # any will do to read options
  plan=$("$python" -P -m preprocess.command.run "$@")
  if [[ $plan != requirements=* ]]; then # the answer to --help
    echo "$plan"
    exit
  fi
  eval "$plan" # requirements, runs, folds_cache, commands
  python=$(set_up "${requirements[@]}")
  if [[ ${#commands[@]} == 0 ]]; then # the answer to --python
    echo "$python"
    exit
  fi
  "$python" -P -m preprocess.command.check "${commands[@]}"
}

stage() { # STAGE [RUN]: starts it with its planned options; does nothing if it has no part in this run
  local command number title=$1
  if [[ ${2:-} == drawn ]]; then title+=", on drawn eyes"; fi
  for number in "${!runs[@]}"; do
    if [[ ${2:-} == "${runs[number]}" && ${#runs[@]} -gt 1 ]]; then
      title+=", fold $((number + 1)) of ${#runs[@]}"
    fi
  done
  for command in "${commands[@]}"; do
    if [[ $command == "$1 ${2:-default} "* ]]; then
      eval "set -- $command" # the stage, the run, the stage's options
      printf '\n== %s\n' "$title"
      END_WITH_SCRIPT=yes "$python" -P -m "$1" "${@:3}"
      return
    fi
  done
}

share_squares() { # with --folds or --average: the later stages find the squares in the folds' cache too
  local part
  if [[ $folds_cache ]]; then
    mkdir -p "$folds_cache"
    for part in crop resize normalize standardize rejected.csv drawn; do
      ln -sfn "../$part" "$folds_cache/$part"
    done
  fi
}

end_interrupted() { # STATUS: of the command that Ctrl-C has ended; 130 if it has said so itself
  if (($1 != 130)); then
    echo "error: interrupted; the same command goes on where it stopped" >&2
  fi
  exit 130
}

fail() { # MESSAGE
  echo "error: $1" >&2
  exit 2
}

set_up() { # FILE...: prints the path of an interpreter that has the requirements in the files
  local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}} own="$root/.venv/bin/python" file
  local -a wanted=()
  if [[ ${PIPELINE_PYTHON:-} ]]; then # dr-pipeline, which pip has installed with all that it needs
    echo "$PIPELINE_PYTHON"
    return
  fi
  if [[ -n $active ]] && has_requirements "$active/bin/python" "$@"; then
    echo "$active/bin/python"
    return
  fi
  if ! has_requirements "$own" "$@"; then
    [[ -w $root ]] || fail "$root: you may not write there, so no packages can be put into its .venv; activate an environment that has those of $*, or clone to a folder of your own"
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
import os, sys
from importlib.metadata import version
from packaging.requirements import Requirement

paths = sys.argv[1:]
for path in paths:
    for line in open(path):
        text = line.partition("#")[0].strip()
        if text.startswith("-r "):
            paths.append(os.path.join(os.path.dirname(path), text[3:]))
        elif text:
            requirement = Requirement(text)
            if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                sys.exit(1)
END
}

find_python() { # PYTHON...: prints the first that is new enough, of these and then of those on the path
  local candidate
  for candidate in "$@" python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer found"
}
