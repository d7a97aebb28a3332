"""Two small phantom sets in nnU-Net raw format, to see the whole chain work without real data: speckled thyroid-like ultrasound (2D,
PNG) and nodules in lung-like CT (3D, NIfTI, HU).

Each is seeded: the same seed gives the same bytes (with the same NumPy, SciPy and SimpleITK). The thyroid set has several images per
patient; splits_final.json keeps a patient's images together. They look roughly like the real thing and are far easier: a Dice on
them says that the chain works, and nothing about any method.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_lngswr.utils.errors import UserError

GENERATOR = "nnunetv2_lngswr.datasets.phantom"
FOLDS = 5


@dataclass(frozen=True)
class Case:
    """`image`: (H, W) uint8, or (Z, Y, X) int16 in HU; `label`: the same shape, uint8, 1 = nodule; `spacing_mm`: per axis of the array."""

    name: str
    image: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True)
class PhantomSet:
    """What a set is called, and how `make(seed, group)` yields the cases of one patient."""

    dataset_id: int
    name: str
    channel: str
    file_ending: str
    training_groups: int
    test_groups: int
    make: Callable[[int, int], Iterator[Case]]

    @property
    def dataset_name(self) -> str:
        return f"Dataset{self.dataset_id:03d}_{self.name}"


def write_phantom(
    kind: str, raw_folder: Path | str, *, seed: int = 0, overwrite: bool = False
) -> Path:
    """Writes the set `kind` ("2d" thyroid, "3d" lung) below `raw_folder` (nnUNet_raw) and returns its folder.

    The folder appears whole or not at all, and holds imagesTr, labelsTr, imagesTs, labelsTs, dataset.json and splits_final.json
    (copy the latter to nnUNet_preprocessed after preprocessing). If it is there already from the same seed nothing is done.
    Raises ValueError if `kind` is unknown, if the folder holds anything else, or if it is of another seed and not `overwrite`.
    """
    if kind not in PHANTOM_SETS:
        raise UserError(f"phantom set must be one of {', '.join(PHANTOM_SETS)}, got {kind!r}")
    if seed < 0:
        raise UserError(f"seed must be >= 0, got {seed}")
    phantom = PHANTOM_SETS[kind]
    folder = Path(raw_folder) / phantom.dataset_name
    made_by = {"module": GENERATOR, "set": kind, "seed": seed}
    if folder.exists():
        found = _made_by(folder)
        if found is None:
            raise UserError(
                f"{folder} exists and is no phantom set: move it away or choose another folder"
            )
        if found == made_by and not overwrite:
            return folder
        if not overwrite:
            raise UserError(
                f"{folder} is a phantom set of seed {found.get('seed')}, asked for is seed {seed}: overwrite it or remove it"
            )

    Path(raw_folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{phantom.dataset_name}.", dir=raw_folder
    ) as temporary:
        made = Path(temporary) / "made"
        _write_set(phantom, made, made_by)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    return folder


def thyroid_patient(seed: int, patient: int) -> Iterator[Case]:
    """Two to four ultrasound images of one patient: the same anatomy and nodules, other planes, other speckle."""
    rng = np.random.default_rng([seed, 901, patient])
    shape = (128, int(rng.integers(9, 12)) * 16)
    anatomy = {
        "skin": rng.uniform(0.05, 0.08),
        "fat": rng.uniform(0.16, 0.22),
        "muscle": rng.uniform(0.30, 0.38),
        "gland": rng.uniform(0.80, 0.92),
        "gain_db": rng.uniform(-4, 4),
        "carotid_side": rng.choice([-1, 1]),
        "nodules": [_random_nodule(rng, slot) for slot in rng.permutation(2)[: rng.integers(1, 3)]],
    }
    for plane in range(int(rng.integers(2, 5))):
        image, label = _thyroid_plane(rng, shape, anatomy)
        yield Case(f"thyroid_p{patient:03d}_{plane}", image, label, (1.0, 1.0))


def lung_patient(seed: int, patient: int) -> Iterator[Case]:
    """One CT crop of lung with vessels, chest wall and one nodule (solid, part-solid or ground-glass; 4 to 9 mm radius)."""
    rng = np.random.default_rng([seed, 902, patient])
    image, label = _lung_crop(rng, shape=(40, 48, 48), spacing_mm=_LUNG_SPACING_MM)
    yield Case(f"lung_{patient:03d}", image, label, _LUNG_SPACING_MM)


PHANTOM_SETS = {
    "2d": PhantomSet(
        901,
        "PhantomThyroid",
        "ultrasound",
        ".png",
        training_groups=15,
        test_groups=4,
        make=thyroid_patient,
    ),
    "3d": PhantomSet(
        902,
        "PhantomLungNodule",
        "CT",
        ".nii.gz",
        training_groups=20,
        test_groups=6,
        make=lung_patient,
    ),
}

_LUNG_SPACING_MM = (1.25, 1.0, 1.0)


def _random_nodule(rng: np.random.Generator, slot: int) -> dict:
    # two slots, left and right of the middle, so that nodules of one patient do not overlap
    return {
        "centre": np.array(
            [rng.uniform(0.50, 0.66), 0.27 + 0.46 * slot + rng.uniform(-0.05, 0.05)]
        ),
        "radius": rng.uniform(0.10, 0.20) * np.array([1.0, rng.uniform(1.0, 1.4)]),
        "contrast_db": rng.uniform(-14, -8),
        "border": rng.uniform(0.8, 2.5),
        "shadow_db": rng.choice([0.0, rng.uniform(-10, -4)]),
        "wobble": rng.normal(0, [0.06, 0.05, 0.03], size=(2, 3)),
    }


def _thyroid_plane(
    rng: np.random.Generator, shape: tuple[int, int], anatomy: dict
) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape
    depth, lateral = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)

    # echogenicity in dB: layers under an undulating surface, streaks along the muscle
    wave = ndimage.gaussian_filter1d(rng.normal(size=width), 12, mode="nearest") * 0.08
    layered = depth + wave
    edges = [anatomy["skin"], anatomy["fat"], anatomy["muscle"], anatomy["gland"]]
    level_db = np.array([0.0, -16.0, -20.0, -7.0, -18.0])[np.searchsorted(edges, layered)]
    streaks = ndimage.gaussian_filter(rng.normal(size=shape), (0.8, 14)) * 25
    level_db += np.where((layered > anatomy["fat"]) & (layered < anatomy["muscle"]), streaks, 0)
    for edge in edges[1:]:  # bright fascia between the layers
        level_db += 8 * np.exp(-(((layered - edge) / 0.012) ** 2))

    # what a threshold would take for a nodule: the carotid artery, dark and round, below the muscle at one side
    carotid = (depth - 0.72) ** 2 / 0.08**2 + (
        (lateral - 0.5 - 0.47 * anatomy["carotid_side"]) * width / height
    ) ** 2 / 0.10**2 < 1
    level_db = np.where(carotid, -32.0, level_db)

    label = np.zeros(shape, np.uint8)
    shadow_db = np.zeros(shape)
    for nodule in anatomy["nodules"]:
        centre = nodule["centre"] + rng.normal(0, 0.02, size=2)
        radius = nodule["radius"] * rng.uniform(0.8, 1.15)
        v, u = (depth - centre[0]) / radius[0], (lateral - centre[1]) * (width / height) / radius[1]
        angle = np.arctan2(v, u)
        outline = 1 + sum(
            a * np.cos(k * angle) + b * np.sin(k * angle)
            for k, (a, b) in enumerate(nodule["wobble"].T, start=2)
        )
        inside = (np.hypot(u, v) < outline) & ~carotid
        label[inside] = 1
        level_db += nodule["contrast_db"] * ndimage.gaussian_filter(
            inside.astype(float), nodule["border"]
        )
        below = np.cumsum(inside, axis=0) * ~inside > 0
        shadow_db += nodule["shadow_db"] * below
    for _ in range(rng.integers(0, 3)):  # shadows from poor contact at the skin
        shadow_db -= rng.uniform(3, 9) * np.exp(-(((lateral - rng.uniform()) / 0.04) ** 2))
    level_db += ndimage.gaussian_filter(shadow_db, (1, 2)) - 6 * depth + anatomy["gain_db"]

    # fully developed speckle: the envelope of complex noise after the scanner's point spread, wider across than along the beam
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), (0.8, 1.6)) for _ in range(2)]
    envelope = np.hypot(*noise)
    envelope /= np.sqrt(np.mean(envelope**2))
    image_db = level_db + 20 * np.log10(envelope + 1e-3)
    return np.clip((image_db + 50) / 55 * 255, 0, 255).astype(np.uint8), label


def _lung_crop(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    spacing = np.array(spacing_mm)
    size_mm = spacing * shape
    points_mm = np.moveaxis(np.indices(shape), 0, -1) * spacing + spacing / 2

    hu = -860 + 400 * ndimage.gaussian_filter(
        rng.normal(size=shape), 2.5
    )  # parenchyma with slow variation

    # the chest wall: outside a large sphere that cuts the crop at one side, with a rib in some
    wall_axis = rng.choice([1, 2])
    wall_sign = rng.choice([-1, 1])
    sphere_centre = size_mm / 2
    sphere_centre[wall_axis] -= wall_sign * rng.uniform(58, 68)
    sphere_centre[0] += rng.uniform(-20, 20)
    wall_mm = np.linalg.norm(points_mm - sphere_centre, axis=-1) - 80
    wall = _soft(-wall_mm)
    hu += wall * (rng.uniform(20, 60) - hu)
    if rng.uniform() < 0.5:
        rib_z = rng.uniform(0.2, 0.8) * size_mm[0]
        rib = _soft(np.hypot(points_mm[..., 0] - rib_z, wall_mm - 6) - 4)
        hu += rib * (rng.uniform(300, 700) - hu)

    vessels = _vessels(rng, shape, spacing) * (1 - wall)
    hu += vessels * (rng.uniform(20, 60) - hu)

    # the nodule: an ellipsoid whose surface wobbles, anywhere in the inner part that is lung
    radius_mm = rng.uniform(4, 9)
    free = (wall_mm < -0.7 * radius_mm) & np.all(
        np.abs(points_mm - size_mm / 2) < size_mm / 2 - radius_mm, axis=-1
    )
    centre = points_mm[free][rng.integers(free.sum())]
    offset = (points_mm - centre) / rng.uniform(0.8, 1.2, size=3)
    distance = np.linalg.norm(offset, axis=-1)
    wobble = ndimage.gaussian_filter(rng.normal(size=shape), 3) * 10
    surface_mm = distance - radius_mm * (1 + 0.12 * np.clip(wobble, -1.5, 1.5))
    solid, glass = rng.uniform(-20, 60), rng.uniform(-600, -450)
    kind = rng.choice(["solid", "part-solid", "ground-glass"], p=[0.6, 0.2, 0.2])
    if kind != "solid":
        hu += _soft(surface_mm) * np.maximum(glass - hu, 0)
    if kind != "ground-glass":
        core_mm = surface_mm if kind == "solid" else surface_mm + 0.5 * radius_mm
        hu += _soft(core_mm) * np.maximum(solid - hu, 0)
    label = ((surface_mm < 0) & (wall_mm < 0)).astype(np.uint8)

    # the scanner: point spread, then noise that is correlated in the plane
    hu = ndimage.gaussian_filter(hu, 0.6 / spacing)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), (0, 0.8, 0.8))
    hu += rng.uniform(15, 35) * noise / noise.std()
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), label


def _vessels(rng: np.random.Generator, shape: tuple[int, ...], spacing: np.ndarray) -> np.ndarray:
    """Occupancy in [0, 1] of a few curved tubes that taper along their way through the crop."""
    centreline = np.ones(shape, bool)
    radius_mm = np.zeros(shape)
    size_mm = spacing * shape
    way = np.linspace(-1, 1, 200)[:, None]
    for _ in range(rng.integers(4, 8)):
        direction, bend = rng.normal(size=(2, 3))
        direction /= np.linalg.norm(direction)
        curve_mm = (
            rng.uniform(0.15, 0.85, size=3) * size_mm + way * direction * 40 + way**2 * bend * 6
        )
        inside = np.all((curve_mm >= 0) & (curve_mm < size_mm), axis=1)
        index = tuple((curve_mm[inside] / spacing).astype(int).T)
        centreline[index] = False
        radius_mm[index] = rng.uniform(0.8, 2.2) * (1 - 0.3 * way[inside, 0])
    distance_mm, nearest = ndimage.distance_transform_edt(
        centreline, sampling=spacing, return_indices=True
    )
    return _soft(distance_mm - radius_mm[tuple(nearest)])


def _soft(surface_mm: np.ndarray) -> np.ndarray:
    """Occupancy of the inside (negative distance), with a ramp of one mm that stands for the partial volume effect."""
    return np.clip(0.5 - surface_mm, 0, 1)


def _write_set(phantom: PhantomSet, folder: Path, made_by: dict) -> None:
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
    groups = []
    for group in range(phantom.training_groups + phantom.test_groups):
        part = "Tr" if group < phantom.training_groups else "Ts"
        names = []
        for case in phantom.make(made_by["seed"], group):
            _write_image(
                case.image,
                case.spacing_mm,
                folder / f"images{part}" / f"{case.name}_0000{phantom.file_ending}",
            )
            _write_image(
                case.label,
                case.spacing_mm,
                folder / f"labels{part}" / f"{case.name}{phantom.file_ending}",
            )
            names.append(case.name)
        if part == "Tr":
            groups.append(names)
    dataset = {
        "channel_names": {"0": phantom.channel},
        "labels": {"background": 0, "nodule": 1},
        "numTraining": sum(map(len, groups)),
        "file_ending": phantom.file_ending,
        "description": "synthetic, for demonstration only",
        "generator": made_by,
    }
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=4) + "\n")
    (folder / "splits_final.json").write_text(json.dumps(_splits(groups), indent=4) + "\n")


def _splits(groups: list[list[str]]) -> list[dict[str, list[str]]]:
    """Five folds; the names of one group are all in training or all in validation."""
    folds = []
    for fold in range(FOLDS):
        val = [name for i, group in enumerate(groups) if i % FOLDS == fold for name in group]
        train = [name for i, group in enumerate(groups) if i % FOLDS != fold for name in group]
        folds.append({"train": sorted(train), "val": sorted(val)})
    return folds


def _write_image(array: np.ndarray, spacing_mm: tuple[float, ...], path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(spacing_mm)))
    sitk.WriteImage(image, str(path), useCompression=True)


def _made_by(folder: Path) -> dict | None:
    """The generator entry of a phantom set, or None if `folder` is something else."""
    try:
        entry = json.loads((folder / "dataset.json").read_text()).get("generator")
    except (OSError, ValueError, AttributeError):
        return None
    return entry if isinstance(entry, dict) and entry.get("module") == GENERATOR else None
