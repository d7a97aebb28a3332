"""The command: --help and mistakes are answered at once, the estimate, and what bad options say."""

import pytest
import torch

from evaluation import command_line, robust
from evaluation.corruption_table import corruption_names
from evaluation.options import Options
from nnunetv2_lngswr.attacks.registry import attack_names
from tests.evaluation.tiny import command, without_torch


def test_dry_run_prints_and_writes_nothing(world, tmp_path, capsys):
    words = ("--dry-run", "--attacks", "fgsm", "--max-cases", "2")
    code = robust.main(command(world, tmp_path / "out", *words))
    said = capsys.readouterr().out
    assert code == 0 and not (tmp_path / "out").exists()
    for needed in (
        "2 cases",
        "fgsm 8/255",
        "gaussian_noise 5",
        "left out: hu_offset",
        "peak memory",
        "for this part",
    ):
        assert needed in said, needed


def test_help_needs_no_torch():
    done = without_torch("import evaluation.robust as r; r.main(['--help'])")
    assert done.returncode == 0 and "--epsilons" in done.stdout and "worst_linf" in done.stdout


def test_help_names_every_attack_and_every_corruption():
    said = command_line.build_parser().format_help().replace("\n", " ").replace(",", " ").split()
    for name in (*attack_names(), *corruption_names()):
        assert name in said or f"{name};" in said, name


BAD = {
    "unknown attack": (["--attacks", "pgd_lnf"], "pgd_linf"),
    "unknown shift": (["--corruptions", "gama"], "gamma"),
    "shift of other data": (
        ["--corruptions", "hu_offset"],
        "does not apply to this data set: needs CT",
    ),
    "negative epsilon": (["--epsilons", "-1/255"], "epsilon must be >= 0, got -1/255"),
    "more than the range": (["--epsilons", "8"], "did you mean 8/255?"),
    "derived attacks only": (
        ["--attacks", "worst_linf", "--corruptions", "none"],
        "there is nothing to run",
    ),
    "l2 of what has no budget": (["--attacks", "ssah_l2"], "ssah"),
    "no number": (["--epsilons", "eight"], "got 'eight'"),
    "division by zero": (["--epsilons", "1/0"], "got '1/0'"),
    "unknown unit": (
        ["--epsilon-unit", "percent"],
        "epsilon unit must be one of range, normalized, original, got 'percent'",
    ),
    "unit without budgets": (
        ["--epsilon-unit", "original", "--attacks", "pgd_linf"],
        "give --epsilons in unit original",
    ),
    "transfer without surrogate": (["--attacks", "transfer"], "--surrogate"),
    "unknown device": (["-device", "gpu"], "device must be"),
    "device that computes nothing": (["-device", "meta"], "must be cpu, cuda, cuda:N or mps, got"),
    "device of another library": (["-device", "xla"], "must be cpu, cuda, cuda:N or mps, got"),
    "device without a number": (["-device", "cuda:-1"], "must be cpu, cuda, cuda:N or mps, got"),
    "fold of no digit": (["-f", "²"], "folds must be numbers or 'all', got ²"),
    "no such fold": (["-f", "3"], "has no fold_3; folds there: 0"),
    "fold no number": (["-f", "first"], "folds must be numbers or 'all', got first"),
    "fold no digit": (["-f", "²"], "folds must be numbers or 'all', got ²"),
    "no such checkpoint": (
        ["-chk", "checkpoint_best.pth"],
        "checkpoints there: checkpoint_final.pth",
    ),
    "step size": (["-step_size", "1.5"], "must be in (0, 1], got 1.5"),
    "steps": (["--steps", "ten"], "steps must be N or NAME=N"),
    "steps of no attack": (
        ["--attacks", "fgsm", "--steps", "ssah=5"],
        "ssah, which is not among the attacks",
    ),
    "steps of the suite": (["--steps", "5"], "steps cannot be set: worst-v2 is fixed"),
    "restarts of the suite": (
        ["--attacks", "worst-v2", "--restarts", "5"],
        "restarts cannot be set: worst-v2 is fixed",
    ),
    "temperature of the suite": (
        ["--temperature", "0.1"],
        "temperature cannot be set: worst-v2 is fixed",
    ),
    "temperature that reaches no attack": (
        ["--attacks", "pgd_linf", "apgd", "--temperature", "0.1"],
        "temperature is of apgd_dice, which is not among the attacks: pgd_linf, apgd",
    ),
    "temperature": (
        ["--attacks", "apgd_dice", "--temperature", "0"],
        "temperature must be a finite number > 0, got 0.0",
    ),
    "steps of the suite by name": (
        ["--attacks", "worst", "apgd", "--steps", "worst-v2=5"],
        "steps of worst-v2 cannot be set",
    ),
    "steps of the suite by its short name": (
        ["--attacks", "worst", "apgd", "--steps", "worst=5"],
        "steps of worst-v2 cannot be set",
    ),
    "steps that reach no attack": (
        ["--attacks", "worst", "square", "--steps", "5"],
        "steps cannot be set: worst-v2 is fixed",
    ),
    "what is only derived": (["--attacks", "worst_l2"], "the suite in L2 alone is worst-v2_l2"),
    "suite of a version that is not there": (
        ["--attacks", "worst-v9"],
        "unknown suite 'worst-v9'; there are worst-v1, worst-v2",
    ),
    "part": (["-num_parts", "2", "-part_id", "2"], "part_id must be in 0..1"),
    "part without number": (["-part_id", "1"], "num_parts must be >= 1"),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
def test_bad_options_say_what_and_how_to_fix(arguments, message, world, tmp_path, capsys):
    code = robust.main(command(world, tmp_path / "out", *arguments))
    assert code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there, count", [(False, 0), (True, 1)])
def test_devices_that_are_not_there_are_named(there, count, world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("mps", "mps:0", "cuda:1"):
        assert robust.main(command(world, tmp_path / "out", "-device", device)) == 2
        assert f"device {device} was asked for, and torch finds" in capsys.readouterr().err


def test_images_without_labels_argument(world, tmp_path, capsys):
    folder, images, labels = world
    assert robust.main(["-m", str(folder), "-i", str(images), "-o", str(tmp_path / "o")]) == 2
    assert "images (-i) were given without labels (-l)" in capsys.readouterr().err
    assert robust.main(["-m", str(folder), "-l", str(labels), "-o", str(tmp_path / "o")]) == 2
    assert "labels (-l) were given without images (-i)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--stpes", "3"], 2, "unrecognized arguments: --stpes"),
        (["--epsilons", "eight"], 2, "got 'eight'"),
        (["--epsilons", "8"], 2, "did you mean 8/255?"),
        (["--steps", "ten"], 2, "steps must be N or NAME=N"),
        (["--attacks", "pgd_lnf"], 2, "did you mean pgd_linf"),
        (["--corruptions", "gama"], 2, "did you mean gamma"),
        (["--attacks", "pgd_linf", "--steps", "ssah=3"], 2, "ssah, which is not among the attacks"),
    ],
)
def test_a_misspelt_option_attack_or_budget_needs_no_torch(words, status, said):
    arguments = ["-m", "MODEL", "-o", "OUT", *words]
    done = without_torch(f"import evaluation.robust as r; sys.exit(r.main({arguments}))")
    assert done.returncode == status and said in done.stderr, done.stderr


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--epsilons 1/255/2", "epsilon must be a number or a fraction"),
        ("--epsilons 1e400", "epsilon must be 0 or from 1e-30 to 1e+09"),
        ("--epsilons-l2 1e99999999", "epsilon must be a number or a fraction"),
        ("--steps =5", "steps must be N or NAME=N, got '=5'"),
        ("--steps noise=", "steps must be N or NAME=N"),
        ("--steps \u00b2", "steps must be N or NAME=N"),
        (f"--attacks apgd --steps {'9' * 23}", "steps must be at most 100000"),
        (f"--steps {'9' * 5000}", "steps must be N or NAME=N"),
        (f"--attacks fgsm --steps fgsm={'9' * 23}", "steps of fgsm must be at most 100000"),
        ("--steps 5 6", "steps are given twice: 5 6"),
        ("--steps apgd=5 apgd=6", "steps of apgd are given twice"),
        (f"--restarts {'9' * 23}", "restarts must be at most 10000"),
        (f"--workers {'9' * 23}", "workers must be at most 512"),
        ("-step_size 1e-9", "step_size (tile_step_size) must be at least 0.05"),
        ("-step_size nan", "must be in (0, 1], got nan"),
        ("--nsd-tolerance inf", "nsd_tolerance must be finite, got inf"),
        ("--nsd-tolerance nan", "nsd_tolerance must be >= 0, got nan"),
        ("--seed -1", "seed must be an integer >= 0, got -1"),
        ("-f \u00b2", "folds must be numbers or 'all', got \u00b2"),
        ("-f -1", "folds must be numbers or 'all', got -1 (-f)"),
    ],
)
def test_what_has_no_meaning_or_no_end_is_refused(words, said, tmp_path, capsys):
    places = ["-m", str(tmp_path / "model"), "-o", str(tmp_path / "out")]
    assert robust.main([*places, *words.split(" ")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    assert not (tmp_path / "out").exists()


def test_the_old_name_of_an_option_is_taken_and_said_once(capsys):
    words = ["-m", "MODEL", "-o", "OUT"]
    for given in (["--shifts", "gamma"], ["--shifts"]):
        old = command_line.parse([*words, *given], prog="lngswr evaluate")
        assert capsys.readouterr().err == (
            "lngswr evaluate: --shifts is now called --corruptions; the old name goes on working\n"
        )
        assert old == command_line.parse([*words, "--corruptions", *given[1:]])
    assert command_line.parse(words)["corruptions"] == Options().corruptions
    assert capsys.readouterr().err == ""
