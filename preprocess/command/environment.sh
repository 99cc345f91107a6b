# For run_all.sh, which sources it: its help, how a stage is started, and an interpreter that has the requirements.

usage() {
  cat <<END
usage: $self   the demo: drawn photographs, submissions/demo.csv and .html
       $self --data DIR [OPTIONS] [STAGE STAGE-OPTIONS]...

From a folder in Kaggle's layout (train/*.jpeg, test/*.jpeg, trainLabels.csv, perhaps sampleSubmission.csv) to
submissions/NAME.csv, and NAME.html, a report on it. Photographs are JPEG or PNG, named .jpeg, .jpg or .png. Every stage
keeps what it makes in the cache: a second run does only what is new or changed.

  --data DIR          the data folder (default: data/demo, which is drawn first): as above, or with a folder per class,
                      {train,val,test}/CLASS/, or with a table of findings and images*/; with --recipe oct-demo or
                      chest-demo it is drawn first, if it does not exist
  --cache DIR         where the stages keep what they make (default: cache, or cache/demo for the demo)
  --name NAME         the submission's name (default: submission, or demo for the demo)
  --recipe NAME       where all options without a value get it from, or FILE.toml (default: article, or demo)
  --jobs N            processes for the stages that read or draw photographs (default: one per core)
  --allow-rejected    go on although some photographs cannot be used: see CACHE/rejected.csv
  --size-px N         side of the cropped squares in pixels
  --epochs N          epochs of training
  --views N           views per eye that are averaged in prediction
  --folds N           train a net per fold of N and average them; the blend and all figures are of all training
                      patients then, each by the net that did not see them (kept in CACHE/folds-N, beside the one net)
  --device NAME       where the net trains and predicts: cuda, mps or cpu (default: the first of them at hand)
  --python [FILE...]  only set up, with the requirements in FILE too, and print the Python interpreter's path

A stage's name begins options for that stage alone; \`python -m STAGE --help\` lists them:
  $self --data data --jobs 8 dr.train --folds 8 --seed 1 blend.train --method linear kappa.assign --method exact

It is software for a competition and for research, not a medical device.
END
}

stage() { # STAGE OPTION...: with the command line's options for this stage behind the others
  local current="" word
  local -a own=()
  for word in ${words[@]+"${words[@]}"}; do
    if is_stage "$word"; then current=$word; elif [[ $current == "$1" ]]; then own+=("$word"); fi
  done
  if [[ $is_plan ]]; then
    planned+=(== "$@" ${own[@]+"${own[@]}"})
    return
  fi
  printf '\n== %s\n' "$1"
  END_WITH_SCRIPT=yes "$python" -P -m "$@" ${own[@]+"${own[@]}"}
}

is_stage() { # WORD: it names a module
  local path="$root/${1//.//}"
  [[ $1 != *[!a-z_.]* && (-f $path.py || -f $path/__main__.py) ]]
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
  "$python" -P -c 'import sys; from preprocess.command import installed, process
process.run(lambda: installed.check_options(sys.argv[1:]))' "$@"
}
