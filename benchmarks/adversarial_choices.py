"""Two choices of adversarial training, measured on a real data set.

    python -m benchmarks.adversarial_choices -d 611 -c 2d -f 0 -chk .../checkpoint_final.pth
        [-p PLANS] [--batches 20] [-o FILE]

Whose intensity range epsilon is a fraction of: [min, max] of the augmented patch as a share of that
of its case, widened to the patch (what `epsilon_range` chooses between); the share is the factor
between the two epsilons. And whether LNG-SWR's prior sees clean or attacked samples: its gains
after the same augmented batches, clean and attacked by the settings of `nnUNetTrainerLNGSWRAT`,
from the same trained network; beside it the difference between two halves of the clean batches,
which is chance. Needs nnUNet_preprocessed; writes nothing but -o.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-d", required=True, metavar="DATASET", help="name or number")
    parser.add_argument("-c", required=True, metavar="CONFIGURATION")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS")
    parser.add_argument("-f", type=int, default=0, metavar="FOLD")
    parser.add_argument(
        "-chk", type=Path, required=True, help="checkpoint of an LNG-SWR trainer with these plans"
    )
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", type=Path, help="write the figures as JSON")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as results:
        # nnU-Net reads it when imported, and a trainer makes its folder there at once
        os.environ["nnUNet_results"] = results
        os.environ["nnUNet_n_proc_DA"] = "0"
        figures = measure(args)
    from nnunetv2_lngswr.experiments.overhead import conditions
    from nnunetv2_lngswr.utils.files import write_file

    command = " ".join(
        [
            "python",
            "-m",
            "benchmarks.adversarial_choices",
            *(sys.argv[1:] if argv is None else argv),
        ]
    )
    result = {**conditions(command, args.device, args.threads), **figures}
    print(json.dumps(result, indent=1))
    if args.o:
        write_file(args.o, json.dumps(result, indent=1) + "\n")


def measure(args: argparse.Namespace) -> dict:
    """Both figures, from `args.batches` augmented batches."""
    import torch

    from nnunetv2_lngswr.training.adversarial_batch import craft
    from nnunetv2_lngswr.training.bounds import patch_bounds

    torch.set_num_threads(args.threads)
    trainer = trained(args)
    loader, _ = trainer.get_dataloaders()
    generator = torch.Generator(args.device).manual_seed(0)
    at = trainer.settings.adversarial
    steps = {"steps": at.attack_steps, "relative_step_size": at.relative_step_size}
    attack = partial(craft, **steps, generator=generator, loss=at.loss)
    shares, clean, attacked = [], [], []
    for _ in range(args.batches):
        batch = trainer._on_device(next(loader))
        x = batch["data"]
        patch = patch_bounds(x, None, x.shape[1])
        case = patch_bounds(x, trainer._ranges(batch["keys"]), x.shape[1])
        share = (patch.maximum - patch.minimum) / (case.maximum - case.minimum)
        shares += share.flatten().tolist()
        clean.append(x)
        everyone = torch.arange(len(x))
        attacked.append(trainer._craft(batch, everyone, at.epsilon_fraction, attack))

    half = args.batches // 2
    of_clean, of_attacked = gains(trainer, clean), gains(trainer, attacked)
    chance = np.abs(gains(trainer, clean[:half]) - gains(trainer, clean[half:]))
    quantiles = np.quantile(shares, (0.05, 0.5, 0.95)).tolist()
    return {
        "epsilon": at.epsilon,
        "samples": len(shares),
        "patch_range_over_case_range": dict(zip(("5%", "median", "95%"), quantiles)),
        "prior_gain_clean_minus_attacked": size(np.abs(of_clean - of_attacked)),
        "prior_gain_between_halves_of_clean": size(chance),
    }


def trained(args: argparse.Namespace):
    """The trainer with the checkpoint's weights, in train mode."""
    import torch
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from nnunetv2_lngswr.trainers import nnUNetTrainerLNGSWRAT
    from nnunetv2_lngswr.utils.checkpoints import load_checkpoint

    folder = Path(nnUNet_preprocessed) / maybe_convert_to_dataset_name(args.d)
    plans, dataset = (
        json.loads((folder / f"{name}.json").read_text()) for name in (args.p, "dataset")
    )
    plans["continue_training"] = False  # as nnUNetv2_train puts it there
    trainer = nnUNetTrainerLNGSWRAT(plans, args.c, args.f, dataset, torch.device(args.device))
    trainer.initialize()
    trainer.network.load_state_dict(load_checkpoint(args.chk)["network_weights"])
    trainer.network.train()
    return trainer


def gains(trainer, batches: list) -> np.ndarray:
    """Prior gains of all stages, channels and bands after these batches alone."""
    import torch

    from nnunetv2_lngswr.utils.seeds import stream_seed

    priors = [branch.prior for _, branch in trainer.lngswr.branches() if branch.prior is not None]
    for prior in priors:
        for buffer in (prior.energy, prior.variance, prior.steps, prior.pending):
            buffer.zero_()
    trainer.lngswr.seed_noise(lambda layer: stream_seed(0, layer))
    for x in batches:
        with torch.no_grad():
            trainer.network(x)
        trainer.lngswr.commit_priors()
    return np.concatenate([prior.gain().flatten().cpu().numpy() for prior in priors])


def size(difference: np.ndarray) -> dict[str, float]:
    return {"mean": float(difference.mean()), "largest": float(difference.max())}


if __name__ == "__main__":
    main()
