"""Arms and variants: what is refused, and what a variant's training gets."""

import json
from pathlib import Path

import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.experiments.robustness import benchmark_robustness
from tests.experiments.robustness.settings import DATASET, TINY


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ('{"mild": {"arm": "LNGSWR", "noise_sigma": 1}}', 'unknown key "noise_sigma"'),
        ('{"mild": {"arm": "LNGSWR", "gate_init": 2}}', "gate_init must be a number in"),
        ('{"mild": {"arm": "LNG-SWR"}}', "unknown arm LNG-SWR"),
        ('{"mild": {"start": 1}}', 'variant mild must be an object with "arm"'),
        (
            '{"again": {"arm": "vanilla"}}',
            "variant again has no settings, so it is the arm vanilla itself",
        ),
        (
            '{"long": {"arm": "LNGSWR", "seed": 7, "num_epochs": 30}}',
            "variant long must not set num_epochs, seed",
        ),
        ('{"AT": {"arm": "LNGSWRAT"}}', "not be an arm's"),
        ('{"../mild": {"arm": "AT"}}', "made of letters"),
    ],
)
def test_bad_variants_are_named(raw, tmp_path, capsys, variants, message):
    file, out = tmp_path / "variants.json", tmp_path / "out"
    file.write_text(variants)
    call = ["benchmark", "robustness", "-d", DATASET, "-c", "2d", "-o", str(out)]
    assert cli.main([*call, "--variants", str(file)]) == 2
    assert message in capsys.readouterr().err and not out.exists()


LATE_PHASE = Path(__file__).parents[3] / "benchmarks/variants/late_phase.json"


@pytest.mark.parametrize("preset", ["search", "cpu-small", "gpu"])
def test_the_variants_of_the_late_phase_are_taken_by_every_preset(raw, tmp_path, capsys, preset):
    call = ["benchmark", "robustness", "-d", DATASET, "-c", "2d", "-o", str(tmp_path / "out")]
    call += ["--arms", "AT", "--preset", preset, "--variants", str(LATE_PHASE), "--dry-run"]
    assert cli.main(call) == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    trained = [c[c.index("-p") + 1] for c in said if "nnUNetv2_train" in c]
    names = [plans.partition("_")[2] for plans in trained]
    assert names == ["", "", *json.loads(LATE_PHASE.read_text())]  # vanilla and AT first


def test_batches_that_cannot_roll_are_refused_before_anything_is_run(raw, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["benchmark", "robustness", "-d", DATASET, "-c", "3d_fullres", "-o", str(out)]
    assert cli.main([*call, "--variants", str(LATE_PHASE)]) == 2
    assert "replays must divide the batch" in (said := capsys.readouterr().err)
    assert "got 5 and a batch of 2: take one of 2" in said and not out.exists()


def test_variants_are_arms_with_settings_of_their_own(raw, tmp_path, ran):
    # an arm itself too, as in the "arms" of a robustness.json
    own = {"noise_sigma_input": 0.5, "adversarial": {"epsilon": "2/255"}}
    variants = {"LNGSWR": {"arm": "LNGSWR"}, "mild": {"arm": "LNGSWR", **own}}
    options = {"arms": [], "preset": "tiny", "settings": {"gate_init": 0.5}, "max_cases": 7}
    out = benchmark_robustness(DATASET, "2d", tmp_path / "out", variants=variants, **options)
    commands = [command for command, _ in ran]
    trained = {
        (c[c.index("-p") + 1], c[c.index("-tr") + 1]) for c in commands if c[0] == "nnUNetv2_train"
    }
    plans, mild = "lngswrBenchmarkSeed0", "lngswrBenchmarkSeed0_mild"
    assert trained == {
        (plans, "nnUNetTrainerVanilla"),
        (plans, "nnUNetTrainerLNGSWR"),
        (mild, "nnUNetTrainerLNGSWR"),
    }
    common = {"gate_init": 0.5, **TINY.budget, "seed": 0}
    assert [_entry(out, name) for name in (plans, mild)] == [common, common | own]
    evaluations = [c for c in commands if c[0] == "lngswr"]
    assert {c[c.index("--max-cases") + 1] for c in evaluations} == {"7"}
    assert len(evaluations) == 3
    other = {"mild": {"arm": "LNGSWR", "gate_init": 0.0}}
    with pytest.raises(ValueError, match="variant mild has other settings than before"):
        benchmark_robustness(DATASET, "2d", out, variants=other, **options)


def _entry(output, plans):
    file = output / "nnUNet_preprocessed" / DATASET / f"{plans}.json"
    return json.loads(file.read_text())["configurations"]["2d"]["lngswr"]


def test_a_budget_without_a_last_phase_is_refused_before_anything_is_run(raw, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["benchmark", "robustness", "-d", DATASET, "-c", "2d", "-o", str(out)]
    call += ["--arms", "LateAT", "--epochs", "3", "--dry-run"]
    assert cli.main(call) == 2
    assert "arm LateAT: " in (said := capsys.readouterr().err) and "of 3 in all" in said
    assert not out.exists()


def test_a_start_that_has_strayed_out_of_adversarial_is_refused_before_anything_is_run(
    raw, tmp_path, capsys
):
    file, out = tmp_path / "variants.json", tmp_path / "out"
    file.write_text('{"late": {"arm": "AT", "start": 0.8}}')
    call = ["benchmark", "robustness", "-d", DATASET, "-c", "2d", "-o", str(out)]
    assert cli.main([*call, "--variants", str(file)]) == 2
    assert '"adversarial": {"start": 0.8}' in capsys.readouterr().err and not out.exists()
