"""Near-duplicates over a fold border are found and refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets import near_duplicates
from nnunetv2_lngswr.datasets.near_duplicates import NearDuplicate, join_groups, leaks
from nnunetv2_lngswr.datasets.splits import cases_of, make_folds
from nnunetv2_lngswr.utils.groups import groups_by_pattern


def texture(seed: int, shape=(96, 128)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 5)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def write_dataset(folder, images):
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ".png"}))
    for name, image in images.items():
        Image.fromarray(image).save(folder / "imagesTr" / f"{name}_0000.png")
    return folder


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(
        tmp_path / "Dataset702_Twins",
        {f"p{i}_{j}": texture(10 * i + j) for i in range(6) for j in range(2)},
    )


@pytest.mark.parametrize("change", ["jpeg", "noise", "brighter", "half the size"])
def test_copies_are_near_and_strangers_are_far(tmp_path, change):
    image = texture(0)
    if change == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=40)
        copy = np.asarray(Image.open(buffer))
    else:
        copy = {
            "noise": np.clip(
                image + np.random.default_rng(1).normal(0, 5, image.shape), 0, 255
            ).astype(np.uint8),
            "brighter": np.clip(image * 0.8 + 40, 0, 255).astype(np.uint8),
            "half the size": np.asarray(Image.fromarray(image).resize((64, 48))),
        }[change]
    folder = write_dataset(
        tmp_path / "set", {"a": image, "copy": copy, **{f"s{i}": texture(i) for i in range(1, 12)}}
    )
    images = cases_of(folder)
    pairs = near_duplicates.near_duplicates(images, {c: c for c in images}, progress=False)
    assert [(p.a, p.b) for p in pairs] == [("a", "copy")]
    # the same pair within a patient is no leak
    assert (
        near_duplicates.near_duplicates(
            images, {c: "same" if c in ("a", "copy") else c for c in images}, progress=False
        )
        == []
    )


def test_hamming_distances_are_those_of_the_hashes(dataset):
    images = cases_of(dataset)
    pairs = near_duplicates.near_duplicates(
        images, {c: c for c in images}, max_distance=256, progress=False
    )
    assert len(pairs) == 66
    for pair in pairs[::7]:
        assert (
            pair.distance
            == (
                near_duplicates.perceptual_hash(images[pair.a])
                != near_duplicates.perceptual_hash(images[pair.b])
            ).sum()
        )


def test_joined_groups_leave_no_leak():
    groups = {f"c{i}": f"g{i}" for i in range(12)}
    # a chain: g0-g1, g1-g2, so that the three belong together
    pairs = [
        NearDuplicate(a="c0", b="c1", distance=1),
        NearDuplicate(a="c1", b="c2", distance=1),
        NearDuplicate(a="c7", b="c5", distance=1),
    ]
    assert leaks(make_folds(groups), pairs)
    joined = join_groups(groups, pairs)
    assert (
        len({joined[f"c{i}"] for i in range(3)}) == 1
        and joined["c5"] == joined["c7"]
        and len(set(joined.values())) == 9
    )
    assert leaks(make_folds(joined), pairs) == []


def test_the_command_refuses_leaks_and_reports_them(dataset, capsys):
    images = cases_of(dataset)
    Image.fromarray(np.asarray(Image.open(images["p0_0"])) // 2).save(images["p3_1"])
    call = ["splits", "-i", str(dataset), "--pattern", r"^(p\d+)_", "--disable_progress_bar"]
    seed = next(
        s
        for s in map(str, range(20))
        if leaks(
            make_folds(groups_by_pattern(images, r"^(p\d+)_"), seed=int(s)),
            [NearDuplicate(a="p0_0", b="p3_1", distance=0)],
        )
    )
    call += ["--seed", seed]
    assert cli.main(call) == 2
    said = capsys.readouterr().err
    assert (
        "near-duplicates over a fold border: p0_0 (p0) and p3_1 (p3)" in said
        and "nothing was written" in said
    )
    written = dataset / "splits_final.json"
    assert not written.exists()
    assert cli.main(call + ["--allow-near-duplicates"]) == 0
    assert leaks(json.loads(written.read_text()), [NearDuplicate(a="p0_0", b="p3_1", distance=0)])
    assert cli.main(call + ["--join"]) == 0
    folds = json.loads(written.read_text())
    assert any({"p0_0", "p0_1", "p3_0", "p3_1"} <= set(f["val"]) for f in folds)
    before = written.stat().st_mtime_ns
    assert cli.main(call + ["--join"]) == 0 and written.stat().st_mtime_ns == before


def test_volumes_are_compared_by_their_middle_slice(tmp_path):
    import SimpleITK as sitk

    folder = tmp_path / "set"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "dataset.json").write_text('{"file_ending": ".nii.gz"}')
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        volume = np.stack([texture(seed + 10 * z).astype(np.int16) * 8 - 1000 for z in range(5)])
        sitk.WriteImage(
            sitk.GetImageFromArray(volume), str(folder / "imagesTr" / f"{name}_0000.nii.gz")
        )
    images = cases_of(folder)
    assert [
        (p.a, p.b)
        for p in near_duplicates.near_duplicates(images, {c: c for c in images}, progress=False)
    ] == [("a", "b")]
