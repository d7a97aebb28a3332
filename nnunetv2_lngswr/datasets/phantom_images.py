"""The images of the phantom sets: speckled ultrasound of a thyroid, a nodule in a CT of lung."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

LUNG_SPACING_MM = (1.25, 1.0, 1.0)


@dataclass(frozen=True)
class Case:
    """One image with its label."""

    name: str
    image: np.ndarray
    """(H, W) uint8, or (Z, Y, X) int16 in HU."""
    label: np.ndarray
    """The same shape, uint8, 1 = nodule."""
    spacing_mm: tuple[float, ...]
    """Per axis of the array."""


def thyroid_patient(seed: int, patient: int) -> Iterator[Case]:
    """Two to four ultrasound images of one patient.

    The same anatomy and nodules, other planes, other speckle.

    Parameters
    ----------
    seed
        Of the set.
    patient
        Number of the patient.
    """
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
    """One CT crop of lung with vessels, chest wall and one nodule.

    The nodule is solid, part-solid or ground-glass, of 4 to 9 mm radius.

    Parameters
    ----------
    seed
        Of the set.
    patient
        Number of the patient.
    """
    rng = np.random.default_rng([seed, 902, patient])
    image, label = _lung_crop(rng, shape=(40, 48, 48), spacing_mm=LUNG_SPACING_MM)
    yield Case(f"lung_{patient:03d}", image, label, LUNG_SPACING_MM)


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
    """Image and label of one plane through the patient, (H, W) uint8."""
    height, width = shape
    depth, lateral = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    level_db = _layers_db(rng, depth, anatomy)

    # what a threshold would take for a nodule: the carotid artery, dark and round, below the muscle
    # at one side
    across = (lateral - 0.5 - 0.47 * anatomy["carotid_side"]) * width / height
    carotid = (depth - 0.72) ** 2 / 0.08**2 + across**2 / 0.10**2 < 1
    level_db = np.where(carotid, -32.0, level_db)

    label = np.zeros(shape, np.uint8)
    shadow_db = np.zeros(shape)
    for nodule in anatomy["nodules"]:
        inside = _nodule_in_plane(rng, depth, lateral, nodule) & ~carotid
        label[inside] = 1
        level_db += nodule["contrast_db"] * ndimage.gaussian_filter(
            inside.astype(float), nodule["border"]
        )
        below = np.cumsum(inside, axis=0) * ~inside > 0
        shadow_db += nodule["shadow_db"] * below
    for _ in range(rng.integers(0, 3)):  # shadows from poor contact at the skin
        shadow_db -= rng.uniform(3, 9) * np.exp(-(((lateral - rng.uniform()) / 0.04) ** 2))
    level_db += ndimage.gaussian_filter(shadow_db, (1, 2)) - 6 * depth + anatomy["gain_db"]

    # fully developed speckle: the envelope of complex noise after the scanner's point spread, wider
    # across than along the beam
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), (0.8, 1.6)) for _ in range(2)]
    envelope = np.hypot(*noise)
    envelope /= np.sqrt(np.mean(envelope**2))
    image_db = level_db + 20 * np.log10(envelope + 1e-3)
    return np.clip((image_db + 50) / 55 * 255, 0, 255).astype(np.uint8), label


def _layers_db(rng: np.random.Generator, depth: np.ndarray, anatomy: dict) -> np.ndarray:
    """Echogenicity in dB: layers under an undulating surface, streaks along the muscle."""
    wave = ndimage.gaussian_filter1d(rng.normal(size=depth.shape[1]), 12, mode="nearest") * 0.08
    layered = depth + wave
    edges = [anatomy["skin"], anatomy["fat"], anatomy["muscle"], anatomy["gland"]]
    level_db = np.array([0.0, -16.0, -20.0, -7.0, -18.0])[np.searchsorted(edges, layered)]
    streaks = ndimage.gaussian_filter(rng.normal(size=depth.shape), (0.8, 14)) * 25
    level_db += np.where((layered > anatomy["fat"]) & (layered < anatomy["muscle"]), streaks, 0)
    for edge in edges[1:]:  # bright fascia between the layers
        level_db += 8 * np.exp(-(((layered - edge) / 0.012) ** 2))
    return level_db


def _nodule_in_plane(
    rng: np.random.Generator, depth: np.ndarray, lateral: np.ndarray, nodule: dict
) -> np.ndarray:
    """Where the nodule is, (H, W) bool: an ellipse whose outline wobbles."""
    height, width = depth.shape
    centre = nodule["centre"] + rng.normal(0, 0.02, size=2)
    radius = nodule["radius"] * rng.uniform(0.8, 1.15)
    v, u = (depth - centre[0]) / radius[0], (lateral - centre[1]) * (width / height) / radius[1]
    angle = np.arctan2(v, u)
    outline = 1 + sum(
        a * np.cos(k * angle) + b * np.sin(k * angle)
        for k, (a, b) in enumerate(nodule["wobble"].T, start=2)
    )
    return np.hypot(u, v) < outline


def _lung_crop(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Image in HU, (Z, Y, X) int16, and label of the same shape, uint8."""
    spacing = np.array(spacing_mm)
    points_mm = np.moveaxis(np.indices(shape), 0, -1) * spacing + spacing / 2
    # parenchyma with slow variation
    hu = -860 + 400 * ndimage.gaussian_filter(rng.normal(size=shape), 2.5)
    wall_mm = _add_chest_wall(rng, hu, points_mm, spacing * shape)
    wall = _soft(-wall_mm)
    vessels = _vessels(rng, shape, spacing) * (1 - wall)
    hu += vessels * (rng.uniform(20, 60) - hu)
    label = _add_lung_nodule(rng, hu, points_mm, spacing * shape, wall_mm)

    # the scanner: point spread, then noise that is correlated in the plane
    hu = ndimage.gaussian_filter(hu, 0.6 / spacing)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), (0, 0.8, 0.8))
    hu += rng.uniform(15, 35) * noise / noise.std()
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), label


def _add_chest_wall(
    rng: np.random.Generator, hu: np.ndarray, points_mm: np.ndarray, size_mm: np.ndarray
) -> np.ndarray:
    """Add what is outside a large sphere that cuts the crop at one side, with a rib in some.

    `hu` is changed. Returns the distance to the wall, negative within lung.
    """
    wall_axis = rng.choice([1, 2])
    wall_sign = rng.choice([-1, 1])
    sphere_centre = size_mm / 2
    sphere_centre[wall_axis] -= wall_sign * rng.uniform(58, 68)
    sphere_centre[0] += rng.uniform(-20, 20)
    wall_mm = np.linalg.norm(points_mm - sphere_centre, axis=-1) - 80
    hu += _soft(-wall_mm) * (rng.uniform(20, 60) - hu)
    if rng.uniform() < 0.5:
        rib_z = rng.uniform(0.2, 0.8) * size_mm[0]
        rib = _soft(np.hypot(points_mm[..., 0] - rib_z, wall_mm - 6) - 4)
        hu += rib * (rng.uniform(300, 700) - hu)
    return wall_mm


def _add_lung_nodule(
    rng: np.random.Generator,
    hu: np.ndarray,
    points_mm: np.ndarray,
    size_mm: np.ndarray,
    wall_mm: np.ndarray,
) -> np.ndarray:
    """Add an ellipsoid whose surface wobbles, anywhere in the inner part that is lung.

    `hu` is changed. Returns the label.
    """
    radius_mm = rng.uniform(4, 9)
    inner = np.abs(points_mm - size_mm / 2) < size_mm / 2 - radius_mm
    free = (wall_mm < -0.7 * radius_mm) & np.all(inner, axis=-1)
    centre = points_mm[free][rng.integers(free.sum())]
    offset = (points_mm - centre) / rng.uniform(0.8, 1.2, size=3)
    distance = np.linalg.norm(offset, axis=-1)
    wobble = ndimage.gaussian_filter(rng.normal(size=hu.shape), 3) * 10
    surface_mm = distance - radius_mm * (1 + 0.12 * np.clip(wobble, -1.5, 1.5))
    solid, glass = rng.uniform(-20, 60), rng.uniform(-600, -450)
    kind = rng.choice(["solid", "part-solid", "ground-glass"], p=[0.6, 0.2, 0.2])
    if kind != "solid":
        hu += _soft(surface_mm) * np.maximum(glass - hu, 0)
    if kind != "ground-glass":
        core_mm = surface_mm if kind == "solid" else surface_mm + 0.5 * radius_mm
        hu += _soft(core_mm) * np.maximum(solid - hu, 0)
    return ((surface_mm < 0) & (wall_mm < 0)).astype(np.uint8)


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
    found = ndimage.distance_transform_edt(centreline, sampling=spacing, return_indices=True)
    assert found is not None  # it is where the caller gives no arrays to fill
    distance_mm, nearest = found
    return _soft(distance_mm - radius_mm[tuple(nearest)])


def _soft(surface_mm: np.ndarray) -> np.ndarray:
    """Occupancy of the inside (negative distance).

    A ramp of one mm stands for the partial volume effect.
    """
    return np.clip(0.5 - surface_mm, 0, 1)
