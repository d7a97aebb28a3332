"""Devices other than the CPU where none is at hand.

PyTorch's meta device has no data, so it refuses to be read and to be mixed with the CPU. The
commands themselves, compiled, run on a GPU with -m gpu, and the same test on the CPU with -m slow.
"""

import csv
import json
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr
from nnunetv2_lngswr.method.noise import LayerwiseNoise
from nnunetv2_lngswr.trainers import nnUNetTrainerLNGSWR
from tests import tiny_dataset
from tests.model_folders import make_network
from tests.pipeline import commands
from tests.pipeline.commands import TRAINER, model_folder, read_label


class Seen(TorchDispatchMode):
    """(operator, device, type) of all tensors that are made."""

    def __init__(self):
        super().__init__()
        self.made = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.made.add((str(func), tensor.device.type, tensor.dtype))
        return result


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"gains": "prior", "wavelet": "db2", "bottleneck_fusion": True}, {"fusion": "conv"}],
    ids=str,
)
def test_a_step_stays_on_its_device_in_types_that_mps_has_and_reads_nothing_back(
    monkeypatch, dimension, options
):
    # the parts of a step that ask a device for more than tensors, which meta has not got
    monkeypatch.setattr(LayerwiseNoise, "_generator_on", lambda self, device: None)
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    network = attach(
        make_network(dimension, features=(4, 8, 8), deep_supervision=True), LNGSWRConfig(**options)
    ).to("meta")
    x = torch.empty(2, 1, *[16, 20, 24][:dimension], device="meta")
    with Seen() as seen:
        sum(o.square().mean() for o in network.train()(x)).backward()
        assert all(p.grad is not None for p in network.parameters())
        find_lngswr(network).commit_priors()
        find_lngswr(network).clamp_gates_()
        with torch.no_grad():
            network.eval()(x)
    # a wavelet's filters are made on the CPU, in double precision
    filters = {"lngswr.analysis_matrix.default"} if "wavelet" in options else set()
    assert {func for func, device, _ in seen.made if device == "cpu"} == filters
    types = {dtype for _, device, dtype in seen.made if device == "meta"}
    assert torch.float32 in types and torch.float64 not in types


def test_nnunets_choices_for_mps_are_kept(monkeypatch, tmp_path):
    plans = tiny_dataset.make_dataset(tmp_path)
    tiny_dataset.use(monkeypatch, tmp_path)
    monkeypatch.setenv("nnUNet_compile", "t")
    plans["continue_training"] = False
    dataset = json.loads(
        (tmp_path / "nnUNet_preprocessed" / tiny_dataset.NAME / "dataset.json").read_text()
    )
    trainer = nnUNetTrainerLNGSWR(plans, "2d", 0, dataset, device=torch.device("mps"))
    assert (
        trainer.device.type == "mps" and trainer.grad_scaler is None and not trainer._do_i_compile()
    )


with_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("cuda", marks=[pytest.mark.gpu, with_cuda]),
    ],
)
def test_train_predict_and_evaluate_in_processes_of_their_own(crossvalidated, tmp_path, device):
    """With nnU-Net's compilation on, which it uses on CUDA only."""
    for folder in ("nnUNet_raw", "nnUNet_preprocessed"):
        (tmp_path / folder).symlink_to(crossvalidated / folder)
    (tmp_path / "nnUNet_results").mkdir()
    images = tmp_path / "nnUNet_raw/Dataset999_Tiny/imagesTr"

    def run(name, *arguments):
        commands.subprocess_command(
            tmp_path, name, *arguments, "-device", device, environment={"nnUNet_compile": "t"}
        )

    for configuration in ("2d", "3d_fullres"):
        run("nnUNetv2_train", "999", configuration, 0, "-tr", TRAINER)
        fold = model_folder(tmp_path, configuration) / "fold_0"
        log = next(fold.glob("training_log*")).read_text()
        assert ("Using torch.compile..." in log) == (device == "cuda")
        out = tmp_path / configuration
        model = ("-d", "999", "-c", configuration, "-tr", TRAINER, "-f", 0)
        run("nnUNetv2_predict", "-i", images, "-o", out, *model)
        assert len(list(out.glob("*.nii.gz"))) == 5
        # to rounding: half precision, other kernels
        for file in (fold / "validation").glob("*.nii.gz"):
            assert (read_label(file) != read_label(out / file.name)).mean() < 0.01
        results = tmp_path / f"robust_{configuration}"
        what = ("--attacks", "fgsm", "--epsilons", "8/255", "--corruptions", "none")
        run("evaluate", "-m", fold.parent, "-o", results, "-f", 0, *what)
        rows = list(csv.DictReader((results / "cases.csv").open()))
        assert {r["attack"] for r in rows} >= {"clean", "fgsm"} and all(
            0 <= float(r["dice"]) <= 1 for r in rows if r["dice"]
        )
