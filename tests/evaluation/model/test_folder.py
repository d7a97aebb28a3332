"""Model folders of any kind, and what bad ones say."""

import json

import pytest
import torch

from evaluation.model.folder import SegmentationModel
from nnunetv2_lngswr.utils.checkpoints import sha256
from nnunetv2_lngswr.utils.errors import UserError
from tests import model_folders
from tests.model_folders import make_model_folder


def test_folds_are_those_found_or_those_asked_for(tmp_path):
    folder = make_model_folder(tmp_path, folds=(0, 2))
    model = SegmentationModel.from_folder(folder)
    assert model.folds == (0, 2) and len(model.networks) == 2
    one = SegmentationModel.from_folder(folder, folds=[2])
    assert one.folds == (2,) and one.checkpoint_sha256 == {
        2: sha256(folder / "fold_2" / "checkpoint_final.pth")
    }
    x = torch.randn((1, 1, 1, 20, 20), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.sliding_window(folds=[2]).logits(x), one.sliding_window().logits(x))
    with pytest.raises(ValueError, match="not loaded"):
        one.sliding_window(folds=[0])


def test_mirroring_follows_the_checkpoint_and_can_be_turned_off(tmp_path):
    folder = make_model_folder(tmp_path, mirror_axes=(1,))
    assert SegmentationModel.from_folder(folder).mirror_axes == (1,)
    off = SegmentationModel.from_folder(folder, use_mirroring=False)
    assert off.mirror_axes is None
    x = torch.randn((1, 1, 20, 20), generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(
        off._inference.logits(x), SegmentationModel.from_folder(folder)._inference.logits(x)
    )


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="plans.json is missing"):
        SegmentationModel.from_folder(tmp_path)
    folder = make_model_folder(tmp_path)
    with pytest.raises(ValueError, match=f"did you mean {folder}?"):
        SegmentationModel.from_folder(folder.parent)
    with pytest.raises(ValueError, match=f"did you mean {folder}?"):
        SegmentationModel.from_folder(folder / "fold_0")
    with pytest.raises(ValueError, match="nowhere does not exist"):
        SegmentationModel.from_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no fold_3; folds there: 0"):
        SegmentationModel.from_folder(folder, folds=[3])
    with pytest.raises(
        ValueError, match="no checkpoint_best.pth; checkpoints there: checkpoint_final.pth"
    ):
        SegmentationModel.from_folder(folder, folds=[0], checkpoint="checkpoint_best.pth")
    with pytest.raises(ValueError, match="no fold with checkpoint_best.pth"):
        SegmentationModel.from_folder(folder, checkpoint="checkpoint_best.pth")
    other = make_model_folder(
        tmp_path / "other", state_dicts=[model_folders.make_network(2, outputs=5).state_dict()]
    )
    with pytest.raises(ValueError, match="does not fit the network of nnUNetTrainer"):
        SegmentationModel.from_folder(other)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="checkpoint_final.pth"):
        SegmentationModel.from_folder(folder)


def test_surrogates_must_preprocess_alike(tmp_path):
    model = SegmentationModel.from_folder(make_model_folder(tmp_path / "a"))
    model.check_surrogate(
        SegmentationModel.from_folder(
            make_model_folder(tmp_path / "b", kind="resenc", patch_size=(24, 24))
        )
    )
    folder = make_model_folder(tmp_path / "c", spacing=(2, 2), normalization="CTNormalization")
    other = SegmentationModel.from_folder(folder)
    with pytest.raises(ValueError, match="differs .* in spacing, normalization_schemes"):
        model.check_surrogate(other)


@pytest.mark.parametrize("fold", ["²", "٣", "1" * 5000, "-1", "", "1.0"])
def test_folds_that_are_no_numbers_are_refused(fold, tmp_path):
    folder = make_model_folder(tmp_path)
    (folder / f"fold_{fold[:9]}").mkdir()  # a folder of that name is no fold either
    with pytest.raises(UserError, match="folds must be numbers or 'all'"):
        SegmentationModel.from_folder(folder, folds=[fold])
    assert SegmentationModel.from_folder(folder).folds == (0,)


def test_folds_of_two_configurations_are_no_model(tmp_path):
    folder = make_model_folder(tmp_path, folds=(0, 1))
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["other"] = plans["configurations"]["2d"]
    (folder / "plans.json").write_text(json.dumps(plans))
    path = folder / "fold_1" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["init_args"]["configuration"] = "other"
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match="fold_1.*is of configuration other, the first"):
        SegmentationModel.from_folder(folder)


def test_older_plans_are_read_as_nnunet_reads_them(tmp_path, recwarn):
    """Before nnU-Net 2.4 plans described the network by other keys."""
    folder = make_model_folder(tmp_path)
    plans = json.loads((folder / "plans.json").read_text())
    configuration = plans["configurations"]["2d"]
    del configuration["architecture"]
    configuration |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "num_pool_per_axis": [1, 1],
        "pool_op_kernel_sizes": [[1, 1], [2, 2]],
        "conv_kernel_sizes": [[3, 3], [3, 3]],
    }
    (folder / "plans.json").write_text(json.dumps(plans))
    x = torch.randn((1, 1, 20, 24), generator=torch.Generator().manual_seed(0))
    new = SegmentationModel.from_folder(make_model_folder(tmp_path / "new"))
    assert torch.equal(
        SegmentationModel.from_folder(folder).predict_logits(x), new.predict_logits(x)
    )
    assert not [w for w in recwarn if "old nnU-Net plans" in str(w.message)]
    configuration["UNet_class_name"] = "os.system"
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UserError, match="Unknown architecture os.system"):
        SegmentationModel.from_folder(folder)
