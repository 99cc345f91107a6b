#!/usr/bin/env bash
# From a folder of retina photographs to a submission CSV: every line of the pipeline below is one stage.
# It needs bash, Python 3.11 or newer and git, and works under bash 3.2 (macOS) too.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
STAGES=" preprocess.synthetic preprocess dr.train dr.predict blend.train blend.predict kappa.assign submissions.write \
submissions.score submissions.report "

usage() {
  cat <<'END'
usage: ./run_all.sh                                   the demo: drawn photographs, submissions/demo.csv and .html
       ./run_all.sh --data DIR [OPTIONS] [STAGE STAGE-OPTIONS]...

From a folder in Kaggle's layout (train/*.jpeg, test/*.jpeg, trainLabels.csv, perhaps sampleSubmission.csv) to
submissions/NAME.csv, and NAME.html, a report on it. Every stage keeps what it makes in the cache: a second run does
only what is new or changed.

  --data DIR          the folder of photographs (default: data/demo, which is drawn first)
  --cache DIR         where the stages keep what they make (default: cache, or cache/demo for the demo)
  --name NAME         the submission's name (default: submission, or demo for the demo)
  --jobs N            processes for the stages that read photographs (default: one per core)
  --allow-rejected    go on although some photographs cannot be used: see CACHE/rejected.csv
  --size-px N         side of the cropped squares in pixels (default: 512, or 256 for the demo)
  --epochs N          epochs of training
  --views N           views per eye that are averaged in prediction
  --dry-run           list the stages, what is cached and what will run, and do nothing
  --python [FILE...]  only set up, with the requirements in FILE too, and print the Python interpreter's path
  --help              this text

A stage's name begins options for that stage alone; `python -m STAGE --help` lists them:
  ./run_all.sh --data data --jobs 8 dr.train --folds 8 --seed 1 blend.train --method linear kappa.assign --method exact
The stages: preprocess (crop, resize, normalize, standardize), dr.train, dr.predict, blend.train, blend.predict,
kappa.assign, submissions.write, submissions.score, submissions.report; for the demo preprocess.synthetic before them.

It is software for a competition and for research, not a medical device.
END
}

fail() {
  echo "error: $1" >&2
  exit 2
}

on_interrupt() { # STATUS: of what Ctrl-C ended; with 130 a stage has said it already
  (($1 == 130)) || echo "error: interrupted; the same command goes on where it stopped" >&2
  exit 130
}
trap 'on_interrupt $?' INT

# --- set up: an interpreter that has what requirements.txt asks for ---------------------------------------------------

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

set_up() { # FILE...: prints the interpreter's path
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

# --- options ----------------------------------------------------------------------------------------------------------

data="" cache="" name="" is_dry=""
image_options=() preprocess_options=() train_options=() predict_options=() stage_options=() planned=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --python) set_up "$root/requirements.txt" "${@:2}"; exit ;;
    --dry-run) is_dry=yes; shift; continue ;;
    --allow-rejected) image_options+=("$1"); predict_options+=("$1"); shift; continue ;;
    --data | --cache | --name | --jobs | --size-px | --epochs | --views)
      [[ -n ${2:-} && $2 != --* ]] || fail "$1 needs a value; see ./run_all.sh --help" ;;
    *)
      case $STAGES in *" $1 "*) stage_options=("$@"); break ;; esac
      fail "unknown option or stage $1; see ./run_all.sh --help" ;;
  esac
  case $1 in
    --data) data=$2 ;;
    --cache) cache=$2 ;;
    --name) name=$2 ;;
    --jobs) image_options+=("$1" "$2") ;;
    --size-px) preprocess_options+=("$1" "$2") ;;
    --epochs) train_options+=("$1" "$2") ;;
    --views) predict_options+=("$1" "$2") ;;
  esac
  shift 2
done

run() { # STAGE OPTION...: with the options that the command line holds for this stage behind the others
  local stage=$1 current="" word
  shift
  local -a own=()
  for word in ${stage_options[@]+"${stage_options[@]}"}; do
    case $STAGES in *" $word "*) current=$word; continue ;; esac
    if [[ $current == "$stage" ]]; then own+=("$word"); fi
  done
  if [[ $is_dry ]]; then
    planned+=(-- "$stage" "$@" ${own[@]+"${own[@]}"})
    return
  fi
  printf '\n== %s\n' "$stage"
  local before=$(sum_manifests) started=$SECONDS
  "$python" -P -m "$stage" "$@" ${own[@]+"${own[@]}"}
  [[ $(sum_manifests) == "$before" ]] || keep_time "$stage" $((SECONDS - started))
}

sum_manifests() { # a checksum that changes when a stage has made something
  cat "$cache"/{crop,resize,normalize,standardize,dr,dr/epochs,dr/runs/*,dr/runs/*/epochs,blend,blend/train,kappa}/manifest.json \
    2>/dev/null | cksum || :
}

keep_time() { # STAGE SECONDS: for the report; a stage's last row counts
  [[ -e $cache/times.csv ]] || echo stage,seconds >"$cache/times.csv"
  echo "$1,$2" >>"$cache/times.csv"
}

hold() { # CACHE: from the first stage to the last; the kernel lets go when this script and its stages are gone
  [[ -z $is_dry ]] || return 0
  local problem
  problem=$({ mkdir -p "$1" && : 9<>"$1/.lock"; } 2>&1) || fail "$1: ${problem##*: }"
  exec 9<>"$1/.lock"
  "$python" -P -m preprocess.lock --cache "$1" --descriptor 9 --pid $$
  export CACHE_LOCK_DESCRIPTOR=9
}

python=$(set_up "$root/requirements.txt")
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# --- the pipeline -----------------------------------------------------------------------------------------------------

if [[ -z $data ]]; then
  data="$root/data/demo" cache=${cache:-$root/cache/demo} name=${name:-demo}
  preprocess_options=(--size-px 256 ${preprocess_options[@]+"${preprocess_options[@]}"})
  train_options=(--recipe nesterov-one-cycle --epochs 20 --batch-size 32 ${train_options[@]+"${train_options[@]}"})
  hold "$cache"
  run preprocess.synthetic --data "$data" --width-px 1024 --levels balanced
else
  cache=${cache:-cache}
  hold "$cache"
fi
at=(--data "$data" --cache "$cache")

run preprocess "${at[@]}" ${image_options[@]+"${image_options[@]}"} ${preprocess_options[@]+"${preprocess_options[@]}"}
run dr.train "${at[@]}" ${train_options[@]+"${train_options[@]}"}
run dr.predict "${at[@]}" ${predict_options[@]+"${predict_options[@]}"}
run blend.train "${at[@]}"
run blend.predict "${at[@]}"
run kappa.assign "${at[@]}"
run submissions.write "${at[@]}" --name "${name:-submission}"
run submissions.score "${at[@]}"
run submissions.report "${at[@]}" --name "${name:-submission}"

if [[ $is_dry ]]; then
  "$python" -P -m submissions.dry_run "${planned[@]:1}"
fi
