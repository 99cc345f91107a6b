#!/usr/bin/env bash
# From a folder of photographs to a submission: a line per stage, with what it reads and writes. Each stage is a module
# that `python -m STAGE` runs alone; preprocess/command/run.py has the options of this script and plans the stages'.
# It needs Python 3.11 or newer, and works under bash 3.2 (macOS) too.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started by another shell: zsh run_all.sh, sh run_all.sh
set -euo pipefail
unset CDPATH # with it, cd prints where it goes
script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do # macOS has no readlink -f
  link=$(readlink "$script")
  [[ $link == /* ]] || link=$(dirname "$script")/$link
  script=$link
done
root=$(cd "$(dirname "$script")" && pwd)
if [[ -d $root/preprocess ]]; then
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
else
  root=${root%/*} # pip has put this script into a folder beside the packages
fi
source "$root/preprocess/command/environment.sh" # plan_run, share_squares, stage

plan_run "$@" # all options are checked before the first stage begins

stage preprocess.synthetic  # a seed -> photographs, drawn: for the demos only
stage preprocess            # photographs -> squares, a lookup table each, their mean and std
for step in preprocess.synthetic preprocess dr.train; do
  stage "$step" drawn       # with weights = "drawn": eyes are drawn, and a net learns on them first, in CACHE/drawn
done
share_squares               # with --folds or --average, to a cache of its own, where all that follows goes on
for run in "${runs[@]}"; do # one; with --folds N, one per fold
  stage dr.train "$run"     # squares and labels -> a checkpoint per epoch
  stage dr.predict "$run"   # checkpoints -> scores, views and epochs averaged
done
stage dr.predict mean       # with --folds or --average: the scores of all runs -> their mean
stage blend.train           # scores and labels -> a blend of both eyes
stage blend.predict         # scores -> blended scores
stage kappa.assign          # blended scores -> levels
stage submissions.write     # levels -> submissions/NAME.csv
stage submissions.score     # the scores and levels of each step -> its gain, on the screen
stage submissions.report    # all that is worth seeing -> submissions/NAME.html
