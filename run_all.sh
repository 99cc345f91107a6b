#!/usr/bin/env bash
# From a folder of photographs to a submission. Each line of `pipeline` is a stage, and `python -m STAGE` runs it alone.
# It needs Python 3.11 or newer, and works under bash 3.2 (macOS) too.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

pipeline() {
  local at=(--data "$data" --cache "$cache" --recipe "$recipe")
  if [[ $is_demo ]]; then stage preprocess.synthetic --data "$data" --recipe "$recipe"; fi # photographs, drawn
  stage preprocess "${at[@]}"                        # photographs -> squares, a lookup table each, their mean and std
  stage dr.train "${at[@]}"                          # squares and labels -> a checkpoint per epoch
  stage dr.predict "${at[@]}"                        # checkpoints -> scores, views and epochs averaged
  stage blend.train "${at[@]}"                       # scores and labels -> a blend of both eyes
  stage blend.predict "${at[@]}"                     # scores -> blended scores
  stage kappa.assign "${at[@]}"                      # blended scores -> levels
  stage submissions.write "${at[@]}" --name "$name"  # levels -> submissions/NAME.csv
  stage submissions.score "${at[@]}"                 # what each step is worth, on the screen
  stage submissions.report "${at[@]}" --name "$name" # all that is worth seeing -> submissions/NAME.html
}

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
  --recipe NAME       where all options without a value get it from, or FILE.toml (default: article, or demo)
  --jobs N            processes for the stages that read or draw photographs (default: one per core)
  --allow-rejected    go on although some photographs cannot be used: see CACHE/rejected.csv
  --size-px N         side of the cropped squares in pixels
  --epochs N          epochs of training
  --views N           views per eye that are averaged in prediction
  --python [FILE...]  only set up, with the requirements in FILE too, and print the Python interpreter's path

A stage's name begins options for that stage alone; `python -m STAGE --help` lists them:
  ./run_all.sh --data data --jobs 8 dr.train --folds 8 --seed 1 blend.train --method linear kappa.assign --method exact

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
  "$python" -P -m "$@" ${own[@]+"${own[@]}"}
}

is_stage() { # WORD: it names a module
  local path="$root/${1//.//}"
  [[ $1 != *[!a-z_.]* && (-f $path.py || -f $path/__main__.py) ]]
}

source "$root/preprocess/environment.sh" # fail, set_up, check_options
trap 'told=$?; ((told == 130)) || echo "error: interrupted; the same command goes on where it stopped" >&2; exit 130' INT

data="" cache="" name="" recipe="" words=() planned=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --python) set_up "$root/requirements.txt" "${@:2}"; exit ;;
    --allow-rejected) words+=(preprocess "$1" dr.predict "$1"); shift; continue ;;
    --data | --cache | --name | --recipe | --jobs | --size-px | --epochs | --views)
      [[ -n ${2:-} && $2 != --* ]] || fail "$1 needs a value; see ./run_all.sh --help" ;;
    *) is_stage "$1" || fail "unknown option or stage $1; see ./run_all.sh --help"; break ;;
  esac
  case $1 in
    --jobs) words+=(preprocess.synthetic "$1" "$2" preprocess "$1" "$2") ;;
    --size-px) words+=(preprocess "$1" "$2") ;;
    --epochs) words+=(dr.train "$1" "$2") ;;
    --views) words+=(dr.predict "$1" "$2") ;;
    *) printf -v "${1#--}" %s "$2" ;; # data, cache, name, recipe
  esac
  shift 2
done
words+=("$@")
is_demo=$([[ $data ]] || echo yes)
if [[ $is_demo ]]; then
  data="$root/data/demo" cache=${cache:-$root/cache/demo} name=${name:-demo} recipe=${recipe:-demo}
else
  cache=${cache:-cache} name=${name:-submission} recipe=${recipe:-article}
fi
python=$(set_up "$root/requirements.txt")
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

is_plan=yes pipeline
for word in "$@"; do
  ! is_stage "$word" || [[ " ${planned[*]} " == *" == $word "* ]] || fail "$word is no stage of this run"
done
check_options "${planned[@]}"
is_plan="" pipeline
