"""A model folder made to do harm runs nothing and overwrites nothing, unless it is trusted."""

import json
import pickle
import tarfile
import zipfile

import pytest
import torch

from evaluation import robust
from nnunetv2_lngswr.cli import main as lngswr
from tests.bad_models import ARCHITECTURE, ARGUMENTS, CHECKPOINT, damaged, put
from tests.evaluation.tiny import command
from tests.model_folders import make_case, make_model_folder

# where nnU-Net takes a name to import, in the plans
SLOTS = {
    "network": f"{ARCHITECTURE}/network_class_name",
    "layer": f"{ARGUMENTS}/conv_op",
    "layer that no list names": f"{ARGUMENTS}/block",
    "normalisation": "configurations/2d/normalization_schemes",
    "resampling": "configurations/2d/resampling_fn_data",
    "preprocessor": "configurations/2d/preprocessor_name",
    "reader": "image_reader_writer",
    "label manager": "label_manager",
}
NAMES = (
    "torch.hub.load",
    "os.system",
    "builtins.exec",
    "torch.nn.modules.conv.torch.hub.load",
    "dynamic_network_architectures.architectures.unet.PlainConvUNet.apply",
    "torch.nn.Module",
    "../stranger",
    "stranger.run",
)


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported; returns the mark's path."""
    mark = tmp_path / "it_ran"
    (tmp_path / "code").mkdir()
    for name in ("stranger", "hubconf"):
        code = f"open({str(mark)!r}, 'w').close()\ndef run(*_, **__): raise RuntimeError('ran')\n"
        (tmp_path / "code" / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "code")
    return mark


@pytest.fixture
def good(tmp_path):
    return make_model_folder(tmp_path / "good")


def evaluate(folder, tmp_path, *words):
    """The command's exit status."""
    images = tmp_path / "images"
    if not images.exists():
        make_case(images, shape=(20, 24))
    world = (folder, images, images / "labels")
    return robust.main(command(world, tmp_path / "out", "--disable_progress_bar", *words))


def warm_start(folder, tmp_path, *words):
    """The command's exit status."""
    return lngswr.main(["warm-start", str(folder / CHECKPOINT), str(tmp_path / "out.pth"), *words])


def hub_attack(tmp_path):
    def change(plans, *_):
        put(plans, f"{ARCHITECTURE}/network_class_name", "torch.hub.load")
        put(plans, f"{ARCHITECTURE}/_kw_requires_import", [])
        arguments = {"repo_or_dir": str(tmp_path / "code"), "model": "run", "source": "local"}
        put(plans, ARGUMENTS, arguments)

    return change


@pytest.mark.parametrize("run", (evaluate, warm_start))
def test_a_folder_that_torch_hub_would_run_is_not_run(run, good, stranger, tmp_path, capsys):
    folder = damaged(good, tmp_path, hub_attack(tmp_path))
    assert run(folder, tmp_path) == 2
    said = capsys.readouterr().err
    assert "\"network_class_name\" is 'torch.hub.load'" in said and "--trust-checkpoint" in said
    assert not stranger.exists() and not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("run", (evaluate, warm_start))
def test_trusting_says_so_for_plans_and_checkpoint(run, good, stranger, tmp_path, capsys):
    folder = damaged(good, tmp_path, hub_attack(tmp_path))
    assert run(folder, tmp_path, "--trust-checkpoint") == 2  # its function raises
    assert "ran" in capsys.readouterr().err and stranger.exists()


@pytest.mark.parametrize("slot", SLOTS)
def test_no_place_of_the_plans_imports_a_strangers_name(slot, good, stranger, tmp_path, capsys):
    for i, name in enumerate(NAMES):
        value = [name] if slot == "normalisation" else name
        root = tmp_path / str(i)
        folder = damaged(good, root, lambda plans, *_, v=value: put(plans, SLOTS[slot], v))
        for run in (evaluate, warm_start):
            assert run(folder, tmp_path) == 2
            said = capsys.readouterr().err
            assert name in said and "--trust-checkpoint" in said, said
    assert not stranger.exists() and not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("name", ("stranger", "stranger.run", "../../code/stranger", "os", ""))
def test_a_trainers_name_imports_nothing(name, good, stranger, tmp_path, capsys):
    def change(_, __, checkpoint):
        checkpoint["trainer_name"] = name

    assert evaluate(damaged(good, tmp_path, change), tmp_path) == 2
    assert "trainer" in capsys.readouterr().err
    assert not stranger.exists()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def _zip(checkpoint, path):
    torch.save(checkpoint, path)


def _before_zip(checkpoint, path):
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)


def _plain_pickle(checkpoint, path):
    path.write_bytes(pickle.dumps(checkpoint, protocol=2))


def _tar(checkpoint, path):
    inside = path.with_suffix(".pickle")
    inside.write_bytes(pickle.dumps(checkpoint, protocol=2))
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            file.add(inside, arcname=name)


@pytest.mark.parametrize("write", (_zip, _before_zip, _plain_pickle, _tar))
@pytest.mark.parametrize("run", (evaluate, warm_start))
def test_a_pickle_that_runs_code_is_not_loaded(run, write, good, tmp_path, capsys):
    mark = tmp_path / "it_ran"
    checkpoint = torch.load(good / CHECKPOINT, weights_only=False)
    write({**checkpoint, "logging": Evil(mark)}, good / CHECKPOINT)
    assert run(good, tmp_path) == 2
    said = capsys.readouterr().err
    assert str(good / CHECKPOINT) in said and "Traceback" not in said
    assert not mark.exists()


def test_torchscript_is_not_run(good, tmp_path, capsys):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(good / CHECKPOINT))
    assert evaluate(good, tmp_path) == 2
    said = capsys.readouterr().err
    assert "is not a torch checkpoint" in said and "weights_only" not in said


def test_names_that_climb_out_of_a_zip_overwrite_nothing(good, tmp_path):
    victim = good / "victim"
    victim.write_text("mine")
    with zipfile.ZipFile(good / CHECKPOINT, "a") as file:
        root = file.namelist()[0].split("/")[0]
        for name in ("../victim", "../../victim", str(victim), f"{root}/../../victim"):
            file.writestr(name, "yours")
    for run in (evaluate, warm_start):
        run(good, tmp_path)  # whatever it says
    assert victim.read_text() == "mine"
    assert not list(tmp_path.glob("**/victim/*")) and len(list(tmp_path.rglob("victim"))) == 1


def test_every_byte_of_a_checkpoint_may_be_wrong(good, tmp_path):
    """Damage in the pickle ends in one line, or is harmless; never in a traceback."""
    sound = (good / CHECKPOINT).read_bytes()
    with zipfile.ZipFile(good / CHECKPOINT) as file:
        names = {n.split("/", 1)[1]: file.read(n) for n in file.namelist()}
    generator = torch.Generator().manual_seed(0)
    content = names["data.pkl"]
    for _ in range(30):
        place = int(torch.randint(len(content), (1,), generator=generator))
        byte = int(torch.randint(256, (1,), generator=generator))
        changed = content[:place] + bytes([byte]) + content[place + 1 :]
        (good / CHECKPOINT).write_bytes(sound)
        with zipfile.ZipFile(good / CHECKPOINT, "w") as file:
            for name, data in {**names, "data.pkl": changed}.items():
                file.writestr(f"archive/{name}", data)
        assert warm_start(good, tmp_path) in (0, 2), (place, byte)


def test_deep_nesting_is_no_traceback(good, tmp_path, capsys):
    (good / "plans.json").write_text("[" * 100_000)
    assert evaluate(good, tmp_path) == 2
    assert "plans.json" in capsys.readouterr().err


def test_a_stranger_cannot_write_outside_by_the_file_ending(good, tmp_path):
    content = json.loads((good / "dataset.json").read_text())
    content["file_ending"] = "/../../../x.nii.gz"
    (good / "dataset.json").write_text(json.dumps(content))
    assert evaluate(good, tmp_path, "--save-adversarial") == 2
