"""Safe loading, and the warm start from a vanilla checkpoint."""

import pickle

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr, is_backbone_key
from nnunetv2_lngswr.trainers import nnUNetTrainerLNGSWR
from nnunetv2_lngswr.training.warm_start import load_warm_start, warm_start_checkpoint
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from tests import model_folders, tiny_dataset


@pytest.fixture(params=[(2, "plain"), (3, "plain"), (2, "resenc")], ids=lambda p: f"{p[0]}d-{p[1]}")
def vanilla(request, tmp_path):
    """(dimension, kind, path of a vanilla checkpoint)."""
    dimension, kind = request.param
    folder = model_folders.make_model_folder(tmp_path, dimension=dimension, kind=kind)
    return dimension, kind, folder / "fold_0" / "checkpoint_final.pth"


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_ordinary_checkpoints_load_and_code_does_not(vanilla, tmp_path, capsys):
    checkpoint = load_checkpoint(vanilla[2])
    assert checkpoint["_best_ema"] == np.float64(0.5)
    torch.save({**checkpoint, "extra": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="print.*could run code.*--trust-checkpoint"):
        load_checkpoint(tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out


def test_every_numpy_scalar_passes_and_the_allow_list_does_not_outlive_the_call(vanilla, tmp_path):
    scalars = [
        t(1) for t in (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)
    ]
    torch.save(
        {
            **load_checkpoint(vanilla[2]),
            "logging": {"values": scalars, "dtype": np.dtype("float32")},
        },
        tmp_path / "c.pth",
    )
    assert load_checkpoint(tmp_path / "c.pth")["logging"]["values"] == scalars
    assert np.dtype not in torch.serialization.get_safe_globals()


def test_trust_is_asked_for(vanilla, tmp_path, capsys):
    torch.save({**load_checkpoint(vanilla[2]), "extra": [1, Evil()]}, tmp_path / "evil.pth")
    load_checkpoint(tmp_path / "evil.pth", trust=True)
    assert "code ran" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", pickle.dumps({"a": 1})])
def test_files_that_are_no_checkpoints_are_refused(content, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="x.pth"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="checkpoint not found"):
        load_checkpoint(tmp_path / "absent.pth")
    torch.save({"weights": 1}, path)
    with pytest.raises(
        ValueError,
        match="not an nnU-Net v2 checkpoint: network_weights, trainer_name, init_args missing",
    ):
        load_checkpoint(path)


def test_truncated_checkpoint_is_refused(vanilla, tmp_path):
    path = tmp_path / "half.pth"
    path.write_bytes(vanilla[2].read_bytes()[:2000])
    with pytest.raises(ValueError, match="half.pth"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "options",
    [{}, {"gains": "prior"}, {"fusion": "conv"}, {"wavelet": "sym4"}, {"bottleneck_fusion": True}],
)
def test_warm_start_computes_vanillas_logits_and_its_gains_still_learn(vanilla, options, rng):
    dimension, kind, path = vanilla
    plain = model_folders.make_network(dimension, kind=kind)  # seed 0: the fold's weights
    ours = attach(model_folders.make_network(dimension, kind=kind, seed=7), LNGSWRConfig(**options))
    x = torch.randn((2, 1, *[16] * dimension), generator=rng)
    load_warm_start(ours, load_checkpoint(path))
    with torch.no_grad():
        assert (ours.eval()(x) - plain.eval()(x)).abs().max() < 1e-5
    ours.train()
    for _ in range(2):  # the prior's gain differs from 1 only after the first commit
        ours.zero_grad()
        ours(x).square().mean().backward()
        find_lngswr(ours).commit_priors()
    assert all(gate.grad.abs().max() > 0 for gate in find_lngswr(ours).gate_parameters())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_ddp_and_of_compiling_are_taken_from_all_weights(vanilla, prefix):
    dimension, kind, _ = vanilla
    one, other = (
        attach(model_folders.make_network(dimension, kind=kind, seed=seed), LNGSWRConfig())
        for seed in (3, 7)
    )
    given = {f"{prefix}{k}": v for k, v in one.state_dict().items()}
    load_warm_start(other, {"network_weights": given})
    assert all(torch.equal(v, one.state_dict()[k]) for k, v in other.state_dict().items())


def test_gates_that_do_not_learn_cannot_start_from_a_vanilla_checkpoint(vanilla):
    """They would stay at the identity, and the reconstruction would do nothing."""
    dimension, kind, path = vanilla
    ours = model_folders.make_network(dimension, kind=kind, seed=7)
    attach(ours, LNGSWRConfig(learn_gates=False))
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    with pytest.raises(UserError, match="learn_gates"):
        load_warm_start(ours, load_checkpoint(path))
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
    own = {"network_weights": before}
    load_warm_start(ours, own)
    conv = attach(
        model_folders.make_network(dimension, kind=kind),
        LNGSWRConfig(learn_gates=False, fusion="conv"),
    )
    load_warm_start(conv, load_checkpoint(path))


def test_converted_checkpoint_passes_nnunets_pretrained_weights(vanilla, tmp_path):
    dimension, kind, path = vanilla
    out = tmp_path / "warm.pth"
    warm_start_checkpoint(path, out)
    source, converted = (load_checkpoint(p)["network_weights"] for p in (path, out))
    for key, value in source.items():
        assert torch.equal(converted[key], value) and converted[key].device.type == "cpu"
    network = attach(
        model_folders.make_network(dimension, kind=kind, seed=7), nnUNetTrainerLNGSWR.method
    )
    load_pretrained_weights(network, str(out))
    for key, value in network.state_dict().items():
        if ".seg_layers." not in key:
            assert torch.equal(converted[key], value)
        if key.endswith("theta"):
            assert not value.any()
    with pytest.raises(ValueError, match="has LNG-SWR parts already"):
        warm_start_checkpoint(out, tmp_path / "again.pth")


def test_another_architecture_is_refused_with_the_keys(tmp_path):
    folder = model_folders.make_model_folder(tmp_path, dimension=2)
    checkpoint = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    for network in (
        model_folders.make_network(2, features=(4, 16)),
        model_folders.make_network(2, kind="resenc"),
    ):
        attach(network, LNGSWRConfig())
        before = {k: v.clone() for k, v in network.state_dict().items()}
        with pytest.raises(ValueError, match="another architecture.*encoder"):
            load_warm_start(network, checkpoint)
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_conversion_reads_the_patch_that_the_noises_strides_are_held_to(tmp_path):
    folder = model_folders.make_model_folder(tmp_path, dimension=2)
    path = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = load_checkpoint(path)
    configuration = checkpoint["init_args"]["plans"]["configurations"]["2d"]
    out = tmp_path / "out.pth"
    configuration["lngswr"] = {"noise_max_stride": 4}
    torch.save(checkpoint, path)
    warm_start_checkpoint(path, out)
    assert any(not is_backbone_key(k) for k in load_checkpoint(out)["network_weights"])
    out.unlink()
    configuration["lngswr"] = {"noise_max_stride": 1024}
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match="noise_max_stride must be at most .* got 1024"):
        warm_start_checkpoint(path, out)
    assert not out.exists()


def test_no_file_is_left_when_conversion_fails(tmp_path):
    folder = model_folders.make_model_folder(tmp_path, extra={"init_args": {}})
    with pytest.raises(ValueError, match="'init_args' lack plans, configuration, dataset_json"):
        warm_start_checkpoint(folder / "fold_0" / "checkpoint_final.pth", tmp_path / "out.pth")
    assert not list(tmp_path.glob("*out*"))


def test_plans_entry_warm_start_loads_the_whole_network_before_the_first_step(
    tmp_path, monkeypatch, rng
):
    plans = tiny_dataset.make_dataset(tmp_path)
    tiny_dataset.use(monkeypatch, tmp_path)
    arch = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"]
    weights = model_folders.make_network(2, features=tuple(arch), seed=3)
    folder = model_folders.make_model_folder(
        tmp_path / "vanilla", state_dicts=[weights.state_dict()]
    )
    entry = {"warm_start": str(folder / "fold_0" / "checkpoint_final.pth"), "seed": 0}
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=entry)
    trainer.on_train_start()
    trainer.set_deep_supervision_enabled(False)
    x = torch.randn((1, 1, 16, 16), generator=rng)
    with torch.no_grad():
        assert (trainer.network.eval()(x) - weights.eval()(x)).abs().max() < 1e-5


def test_backbone_keys_are_told_apart():
    network = attach(model_folders.make_network(2), LNGSWRConfig())
    own = [k for k in network.state_dict() if not is_backbone_key(k)]
    assert own and all("lngswr" in k for k in own)


def test_parts_of_other_settings_are_refused_with_the_source(tmp_path):
    folder = model_folders.make_model_folder(tmp_path)
    source = tmp_path / "warm.pth"
    warm_start_checkpoint(folder / "fold_0" / "checkpoint_final.pth", source)
    other = attach(model_folders.make_network(2), LNGSWRConfig(reconstruction=False))
    with pytest.raises(UserError, match="warm.pth are of other settings than the network's"):
        load_warm_start(other, load_checkpoint(source), source)


def test_weights_that_are_not_finite_are_no_start(tmp_path):
    weights = model_folders.make_network(2).state_dict()
    weights["decoder.seg_layers.0.bias"][0] = torch.nan
    folder = model_folders.make_model_folder(tmp_path, state_dicts=[weights])
    network = attach(model_folders.make_network(2), LNGSWRConfig())
    with pytest.raises(UserError, match="NaN or infinite values, in decoder.seg_layers.0.bias"):
        load_warm_start(network, load_checkpoint(folder / "fold_0" / "checkpoint_final.pth"))
