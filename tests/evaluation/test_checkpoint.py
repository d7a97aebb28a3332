import numpy as np
import pytest
import torch

from evaluation.checkpoint import load_checkpoint

WHOLE = {"network_weights": {"w": torch.ones(2)}, "trainer_name": "nnUNetTrainer", "init_args": {"configuration": "2d"}}


class Malicious:
    def __reduce__(self):
        return print, ("code ran",)


def saved(tmp_path, **more):
    torch.save({**WHOLE, **more}, tmp_path / "c.pth")
    return tmp_path / "c.pth"


def test_ordinary_checkpoints_pass_with_every_numpy_scalar(tmp_path):
    scalars = [t(1) for t in (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)]
    loaded = load_checkpoint(saved(tmp_path, logging={"values": scalars, "dtype": np.dtype("float32")}))
    assert loaded["logging"]["values"] == scalars and loaded["trainer_name"] == "nnUNetTrainer"


def test_anything_else_is_named_refused_and_not_run(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"print.*--trust-checkpoint"):
        load_checkpoint(saved(tmp_path, extra=Malicious()))
    with pytest.raises(ValueError, match="tests.evaluation.test_checkpoint.Malicious|builtins.print"):
        load_checkpoint(saved(tmp_path, extra=[1, Malicious()]))
    assert "code ran" not in capsys.readouterr().out
    load_checkpoint(saved(tmp_path, extra=Malicious()), trust=True)
    assert "code ran" in capsys.readouterr().out


def test_the_allow_list_does_not_outlive_the_call(tmp_path):
    load_checkpoint(saved(tmp_path, x=np.float64(1)))
    assert np.dtype not in torch.serialization.get_safe_globals()


def test_other_files_are_named(tmp_path):
    (tmp_path / "c.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="c.pth"):
        load_checkpoint(tmp_path / "c.pth")
    torch.save({"state_dict": {}}, tmp_path / "d.pth")
    with pytest.raises(ValueError, match="no nnU-Net v2 checkpoint: network_weights, trainer_name, init_args missing"):
        load_checkpoint(tmp_path / "d.pth")
