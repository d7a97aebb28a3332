"""OUT while work goes on: resume and parts to the byte, other settings, full disks."""

import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import SimpleITK as sitk

from evaluation import robust, run_case
from evaluation.results_folder import ResultsFolder
from tests import model_folders
from tests.evaluation.tiny import FAST_WORDS, cases_csv, command, run, without_torch
from tests.model_folders import make_case, make_model_folder


def test_a_killed_run_resumes_to_the_same_bytes_without_repeating_cases(
    world, finished, tmp_path, monkeypatch
):
    out, done = tmp_path / "out", []
    original = run_case.apply_corruption

    def killed(*args, **kwargs):
        done.append(1)
        if len(done) == 8:  # in the middle of the second case's shifts
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(run_case, "apply_corruption", killed)
    with pytest.raises(KeyboardInterrupt):
        run(world, out)
    assert (
        sorted(p.name for p in (out / "parts").iterdir()) == ["case0.json", "case0.npz"]
        and not (out / "cases.csv").exists()
    )
    written = (out / "parts" / "case0.json").stat().st_mtime_ns
    monkeypatch.undo()
    result = run(world, out)
    assert result.finished and cases_csv(out) == cases_csv(finished.folder)
    assert (out / "parts" / "case0.json").stat().st_mtime_ns == written


def test_parts_merged_equal_the_whole(world, finished, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = run(world, out, num_parts=2, part_id=1)
    assert not first.finished and not (out / "cases.csv").exists()
    # the other one as torchrun starts it
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run(world, out).finished
    assert cases_csv(out) == cases_csv(finished.folder)


def test_a_changed_file_is_evaluated_again(world, state_dicts, tmp_path):
    folder = make_model_folder(tmp_path, state_dicts=[state_dicts[2]])
    for seed in range(2):
        make_case(tmp_path / "images", shape=(20, 24), seed=seed)
    small = (folder, tmp_path / "images", tmp_path / "images" / "labels")
    run(small, tmp_path / "out", corruptions=[], epsilons=["4/255"])
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "parts").glob("*.json")}
    image, _ = model_folders.ball((20, 24), seed=0)
    model_folders.write_image(tmp_path / "images" / "case0_0000.nii.gz", image + 3)
    run(small, tmp_path / "out", corruptions=[], epsilons=["4/255"])
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "parts").glob("*.json")}
    assert (
        after["case0.json"] > before["case0.json"] and after["case1.json"] == before["case1.json"]
    )


def test_parts_of_changed_files_are_not_merged(state_dicts, tmp_path):
    folder = make_model_folder(tmp_path, state_dicts=[state_dicts[2]])
    for seed in range(2):
        make_case(tmp_path / "images", shape=(20, 24), seed=seed)
    small, quick = (
        (folder, tmp_path / "images", tmp_path / "images" / "labels"),
        {"corruptions": [], "attacks": ["noise"], "epsilons": ["4/255"], "num_parts": 2},
    )
    run(small, tmp_path / "out", part_id=1, **quick)
    image, _ = model_folders.ball((20, 24), seed=1)
    model_folders.write_image(tmp_path / "images" / "case1_0000.nii.gz", image + 3)
    assert not run(small, tmp_path / "out", part_id=0, **quick).finished
    assert run(small, tmp_path / "out", part_id=1, **quick).finished


def test_settings_without_results_bind_nobody_and_reformatted_ones_keep_theirs(world, tmp_path):
    out, small = tmp_path / "out", {"corruptions": [], "attacks": ["noise"], "max_cases": 1}
    run(world, out, **small, epsilons=["4/255"])
    settings = out / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text())))
    written = (part := next((out / "parts").glob("*.json"))).stat().st_mtime_ns
    assert (
        run(world, out, **small, epsilons=["4/255"]).finished and part.stat().st_mtime_ns == written
    )
    settings.write_text(settings.read_text()[:100])
    with pytest.raises(ValueError, match="settings.json is not readable as JSON.*--overwrite"):
        run(world, out, **small, epsilons=["4/255"])
    assert run(world, out, **small, epsilons=["4/255"], overwrite=True).finished
    for name in ("parts", "cases.csv", "summary.json", "report.md", "report.html", "curves.png"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run(world, out, **small, epsilons=["8/255"]).finished


def test_processes_that_overwrite_at_once_find_it_done(tmp_path):
    for trial in range(5):
        out = tmp_path / str(trial)
        (out / "parts").mkdir(parents=True)
        for i in range(200):
            (out / "parts" / f"{i}.json").write_text("{}")
        (out / "settings.json").write_text('{"a": 1}')
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda out: ResultsFolder(out).open({"a": 2}), [out] * 4))
        assert sorted(p.name for p in out.iterdir()) == [".lock", "settings.json"]
        assert ResultsFolder(out).holds({"a": 2})


def test_other_settings_are_refused_and_named_unless_overwritten(world, tmp_path):
    small = {"corruptions": [], "epsilons": ["4/255"], "attacks": ["noise"], "max_cases": 1}
    run(world, tmp_path / "out", **small)
    before = cases_csv(tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"other settings \(options.nsd_tolerance: was 2.0, is 1.0\).*--overwrite"
    ):
        run(world, tmp_path / "out", **small, nsd_tolerance=1.0)
    assert cases_csv(tmp_path / "out") == before
    run(world, tmp_path / "out", **{**small, "epsilons": ["8/255"]}, overwrite=True)
    assert cases_csv(tmp_path / "out") != before


def test_a_full_disk_leaves_no_half_written_file(world, finished, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    original = os.fsync
    words = command(world, out, "--disable_progress_bar", *FAST_WORDS)

    def full(handle):
        if "cases.csv" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert robust.main(words) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == [".lock", "parts", "settings.json"]
    assert not list(out.rglob("*.tmp"))
    monkeypatch.undo()
    assert robust.main(words) == 0
    assert cases_csv(out) == cases_csv(finished.folder)


def test_a_disk_that_fills_while_a_perturbed_case_is_written(world, tmp_path, monkeypatch, capsys):
    original = sitk.WriteImage

    def truncated(image, path, *args):  # what ITK does on a full disk, without a word
        original(image, path, *args)
        os.truncate(path, 200)

    monkeypatch.setattr(sitk, "WriteImage", truncated)
    options = (
        *("--attacks", "fgsm", "--epsilons", "4/255", "--corruptions", "none"),
        *("--max-cases", "1", "--save-adversarial"),
    )
    words = command(world, tmp_path / "out", "--disable_progress_bar", *options)
    assert robust.main(words) == 2
    assert "free space and run the same command again" in capsys.readouterr().err
    assert not [p for p in (tmp_path / "out" / "adversarial").rglob("*") if p.is_file()]
    monkeypatch.undo()
    assert (
        robust.main(words) == 0
        and len(list((tmp_path / "out" / "adversarial").rglob("*.nii.gz"))) == 1
    )


def test_the_folder_is_read_without_torch(finished):
    done = without_torch(
        "from evaluation.results_folder import ResultsFolder\n"
        f"out = ResultsFolder({str(finished.folder)!r})\n"
        "import json; print(out.holds(json.loads(out.settings_file.read_text())))"
    )
    assert done.stdout == "True\n", done.stderr


def test_a_part_of_other_settings_is_no_part(world, tmp_path):
    """As a process writes it that goes on after its call was killed, and OUT overwritten."""
    small = {"corruptions": [], "epsilons": ["4/255"], "attacks": ["pgd_linf"], "max_cases": 1}
    out = run(world, tmp_path / "out", **small, steps=1).folder
    late = {p: p.read_bytes() for p in (out / "parts").iterdir()}
    assert len(late) == 2
    whole = cases_csv(run(world, out, **small, steps=3, overwrite=True).folder)
    for path, content in late.items():
        path.write_bytes(content)
    assert {r["steps"] for r in run(world, out, **small, steps=3).rows()} == {None, 3}
    assert cases_csv(out) == whole
    picture = next(p for p in late if p.suffix == ".npz")
    picture.write_bytes(late[picture])
    with pytest.raises(ValueError, match="was made with other settings"):
        run(world, out, **small, steps=3)


def test_parts_that_carry_no_hash_are_those_of_settings_json(world, finished, tmp_path):
    """As earlier versions wrote them."""
    out = shutil.copytree(finished.folder, tmp_path / "out")
    for path in (out / "parts").glob("*.json"):
        part = json.loads(path.read_text())
        assert len(part.pop("settings_sha256")) == 64 and part.pop("inputs_state")
        path.write_text(json.dumps(part))
    before = {p: p.stat().st_mtime_ns for p in (out / "parts").iterdir()}
    assert run(world, out).finished and cases_csv(out) == cases_csv(finished.folder)
    assert {p: p.stat().st_mtime_ns for p in (out / "parts").iterdir()} == before
    with pytest.raises(ValueError, match="other settings"):
        run(world, out, steps=3)
