#!/usr/bin/env bash
# From a folder of photographs to a submission. Each line of `pipeline` is a stage, and `python -m STAGE` runs it alone.
# It needs Python 3.11 or newer, and works under bash 3.2 (macOS) too.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) self=./run_all.sh
home=$root # of the demo
if [[ ! -d $root/preprocess ]]; then root=${root%/*} home=$PWD self="dr-pipeline run"; fi # pip has installed it

pipeline() {
  local at=(--data "$data" --cache "$cache" --recipe "$recipe")
  if [[ $is_drawn ]]; then stage preprocess.synthetic --data "$data" --recipe "$recipe"; fi # photographs, drawn
  stage preprocess "${at[@]}"                        # photographs -> squares, a lookup table each, their mean and std
  if [[ $folds ]]; then score_folds; else            # these two for each fold, in a cache of their own
    stage dr.train "${at[@]}"                        # squares and labels -> a checkpoint per epoch
    stage dr.predict "${at[@]}"                      # checkpoints -> scores, views and epochs averaged
  fi
  stage blend.train "${at[@]}"                       # scores and labels -> a blend of both eyes
  stage blend.predict "${at[@]}"                     # scores -> blended scores
  stage kappa.assign "${at[@]}"                      # blended scores -> levels
  stage submissions.write "${at[@]}" --name "$name"  # levels -> submissions/NAME.csv
  stage submissions.score "${at[@]}"                 # what each step is worth, on the screen
  stage submissions.report "${at[@]}" --name "$name" # all that is worth seeing -> submissions/NAME.html
}

score_folds() { # a net per fold, and the mean of their scores: in CACHE/folds-N, where the later stages go on
  local fold part own=$cache/folds-$folds
  local -a runs=()
  at=(--data "$data" --cache "$own" --recipe "$recipe") # of the pipeline, from here on
  if [[ ! $is_plan ]]; then
    mkdir -p "$own"
    for part in crop resize normalize standardize rejected.csv; do ln -sfn "../$part" "$own/$part"; done
  fi
  for ((fold = 0; fold < folds; fold++)); do
    stage dr.train "${at[@]}" --run "fold-$fold" --folds "$folds" --fold "$fold"
    stage dr.predict "${at[@]}" --run "fold-$fold"
    runs+=("fold-$fold")
  done
  stage dr.predict "${at[@]}" --average "${runs[@]}"
}

source "$root/preprocess/command/environment.sh" # usage, fail, stage, is_stage, set_up, check_options
trap 'told=$?; ((told == 130)) || echo "error: interrupted; the same command goes on where it stopped" >&2; exit 130' INT

data="" cache="" name="" recipe="" folds="" words=() planned=()
while (($#)); do
  [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
  case $1 in
    --help | -h) usage; exit ;;
    --python) set_up "$root/requirements.txt" "${@:2}"; exit ;;
    --allow-rejected) words+=(preprocess "$1" dr.predict "$1"); shift; continue ;;
    --data | --cache | --name | --recipe | --jobs | --size-px | --epochs | --views | --folds | --device)
      [[ -n ${2:-} && $2 != --* ]] || fail "$1 needs a value; see $self --help" ;;
    *) is_stage "$1" || fail "unknown option or stage $1; see $self --help"; break ;;
  esac
  case $1 in
    --jobs) words+=(preprocess.synthetic "$1" "$2" preprocess "$1" "$2") ;;
    --size-px) words+=(preprocess "$1" "$2") ;;
    --epochs) words+=(dr.train "$1" "$2") ;;
    --views) words+=(dr.predict "$1" "$2") ;;
    --device) words+=(dr.train "$1" "$2" dr.predict "$1" "$2") ;;
    *) printf -v "${1#--}" %s "$2" ;; # data, cache, name, recipe, folds
  esac
  shift 2
done
words+=("$@")
if [[ $folds ]]; then
  [[ $folds =~ ^([2-9]|[1-9][0-9])$ ]] || fail "--folds $folds: a number from 2 to 99"
  [[ " $* " != *" --fold"[s=\ ]* && " $* " != *" --run"[=\ ]* ]] || fail "--folds $folds names folds and runs itself"
fi
is_demo=$([[ $data ]] || echo yes)
if [[ $is_demo ]]; then
  data="$home/data/demo" cache=${cache:-$home/cache/demo} name=${name:-demo${folds:+-folds}} recipe=${recipe:-demo}
else
  cache=${cache:-cache} name=${name:-submission${folds:+-folds}} recipe=${recipe:-article}
fi
# What a demo's recipe draws is drawn where nothing lies yet, or goes on where it was stopped.
is_drawn=$([[ ! $recipe == *demo || (-e $data && ! -d $data/synthetic) ]] || echo yes)
[[ ! $is_demo ]] || is_drawn=yes
python=$(set_up "$root/requirements.txt")
export PYTHONUNBUFFERED=1
[[ $home != "$root" ]] || export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

is_plan=yes pipeline
for word in "$@"; do
  ! is_stage "$word" || [[ " ${planned[*]} " == *" == $word "* ]] || fail "$word is no stage of this run"
done
check_options "${planned[@]}"
is_plan="" pipeline
