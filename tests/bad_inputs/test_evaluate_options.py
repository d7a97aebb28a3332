"""`lngswr evaluate`: bad attacks, budgets, steps and other options."""

import pytest

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs.harness import bad, rows
from tests.bad_inputs.spoil import write
from tests.bad_inputs.test_evaluate_arguments import LONG, evaluate

ATTACKS = [
    bad("attack misspelt", evaluate("--attacks", "pgd_lnf"), "pgd_lnf", "pgd_linf"),
    bad("attack in capitals", evaluate("--attacks", "PGD_LINF"), "PGD_LINF", "pgd_linf"),
    bad("attack is empty text", evaluate("--attacks", ""), "attack", "''"),
    bad("attack of a wrong norm", evaluate("--attacks", "pgd_linf_l2"), "pgd_linf_l2"),
    bad("attack without budget in l2", evaluate("--attacks", "ssah_l2"), "ssah_l2"),
    bad("groups by a pattern that finds none", evaluate("--groups", "p\\d"), "case0", "--groups"),
    bad("groups by no pattern", evaluate("--groups", "("), "regular expression"),
    bad("groups by a missing table", evaluate("--groups", "ROOT/t.csv"), "ROOT/t.csv", "--groups"),
    bad(
        "groups by a table that lacks cases",
        evaluate("--groups", "ROOT/t.csv"),
        "no row for case0",
        spoil=write("t.csv", "case,patient\nx,1\n"),
    ),
    bad(
        "groups with a case in two",
        evaluate("--groups", "ROOT/t.csv"),
        "case0 has two groups, 1 and 2",
        spoil=write("t.csv", "case,patient\ncase0,1\ncase0,2\n"),
    ),
    bad("groups are empty text", evaluate("--groups", ""), "--groups"),
    bad("transfer without surrogate", evaluate("--attacks", "transfer"), "--surrogate"),
    bad("torchattacks:NoSuch", evaluate("--attacks", "torchattacks:NoSuch"), "NoSuch"),
    bad("torchattacks without a name", evaluate("--attacks", "torchattacks:"), "torchattacks"),
    bad(
        "torchattacks in another unit",
        evaluate("--attacks", "torchattacks:FGSM", "--epsilon-unit", "normalized"),
        "torchattacks:FGSM",
        "normalized",
    ),
    bad("nothing to run", evaluate("--attacks"), "nothing", "--attacks"),
    bad("worst alone", evaluate("--attacks", "worst_linf"), "nothing"),
    bad("attack is an option's value", evaluate("--attacks", "8/255"), "8/255"),
    bad("corruption misspelt", evaluate("--corruptions", "gama"), "gama", "gamma"),
    bad("corruption is empty text", evaluate("--corruptions", ""), "corruption", "''"),
    bad("corruption for CT", evaluate("--corruptions", "hu_shift"), "hu_shift"),
    bad("corruption by a number", evaluate("--corruptions", "3"), "3"),
]

CONDITIONS = [
    bad(f"condition {number}: {text}", evaluate(*more, "--fail-if", *text.split("; ")), *says)
    for number, (text, more, *says) in enumerate(
        [
            ("", (), "--fail-if", "such as"),
            ("worst_linf@1/255<", (), "--fail-if", "such as"),
            ("clean<0.6", (), "percent", "did you mean 60?"),
            ("nois@1/255<60", (), "nois", "did you mean noise"),
            ("clean<60; noise@200/255<60", (), "noise@200/255<60", "noise is run as"),
            ("clean<60; ssah<60", (), "ssah", "not run"),
            ("ssah<60", ("--dry-run",), "ssah", "not run"),
        ]
    )
]

BUDGETS = [
    bad(f"epsilon {text or 'is empty text'}"[:40], evaluate(flag, text), "epsilon", *says)
    for flag, text, *says in [
        ("--epsilons", "eight", "eight"),
        ("--epsilons", "", "''"),
        ("--epsilons", "-1/255", "-1/255"),
        ("--epsilons", "-0.5", "-0.5"),
        ("--epsilons", "8", "8/255"),
        ("--epsilons", "1.5", "1.5"),
        ("--epsilons", "1/0", "1/0"),
        ("--epsilons", "1/255/2", "1/255/2"),
        ("--epsilons", "8/", "8/"),
        ("--epsilons", "/255", "/255"),
        ("--epsilons", "8/255,", "8/255,"),
        ("--epsilons", "0x10", "0x10"),
        ("--epsilons", "nan", "nan"),
        ("--epsilons", "inf", "inf"),
        ("--epsilons", "1e400", "1e400"),
        ("--epsilons", "1e99999999", "1e99999999"),
        ("--epsilons", "1e-99999999", "1e-99999999"),
        ("--epsilons", LONG),
        ("--epsilons-l2", "x", "x"),
        ("--epsilons-l2", "2", "2/255"),
        ("--epsilons-l2", "-2/255", "-2/255"),
        ("--epsilons-l2", "nan/255", "nan"),
    ]
] + [
    bad("no epsilon", evaluate("--attacks", "fgsm", "--epsilons"), "--epsilons", "fgsm"),
    bad("epsilon unit", evaluate("--epsilon-unit", "percent"), "percent", "normalized"),
    bad("epsilon unit is empty text", evaluate("--epsilon-unit", ""), "epsilon unit"),
    bad(
        "huge epsilon in another unit",
        evaluate("--epsilon-unit", "normalized", "--epsilons", "1e300"),
        "epsilon",
        "1e300",
    ),
]

STEPS = [
    bad(f"steps {text}", evaluate("--attacks", "pgd_linf", "--steps", text), "steps", *says)
    for text, *says in [
        ("ten", "ten"),
        ("0", "0"),
        ("-3", "-3"),
        ("2.5", "2.5"),
        ("=5", "=5"),
        ("pgd_linf=", "pgd_linf="),
        ("pgd_linf=x", "pgd_linf=x"),
        ("pgd_linf=0", "pgd_linf", "0"),
        ("pgd_linf=-2", "-2"),
        ("pgd_linf=3=4", "pgd_linf=3"),
        ("ssah=3", "ssah"),
        ("²", "²"),
        (LONG, LONG[:8]),
        (f"pgd_linf={LONG}", LONG[:8]),
    ]
] + [bad("steps is empty text", evaluate("--steps", ""), "steps", "''")]

NUMBERS = [
    bad(f"{flag} {text}"[:40], evaluate(flag, text), *says)
    for flag, text, *says in [
        ("-step_size", "0", "step_size", "0"),
        ("-step_size", "-0.5", "step_size", "-0.5"),
        ("-step_size", "1.5", "step_size", "1.5"),
        ("-step_size", "nan", "step_size", "nan"),
        ("-step_size", "inf", "step_size", "inf"),
        ("-step_size", "half", "step_size", "half"),
        ("-step_size", "1e-9", "step_size", "1e-09"),
        ("--restarts", "0", "restarts", "0"),
        ("--restarts", "-1", "restarts", "-1"),
        ("--restarts", "1.5", "restarts", "1.5"),
        ("--restarts", LONG, "restarts", LONG[:8]),
        ("--temperature", "0", "temperature", "0"),
        ("--temperature", "-0.05", "temperature", "-0.05"),
        ("--temperature", "nan", "temperature", "nan"),
        ("--temperature", "inf", "temperature", "inf"),
        ("--temperature", "warm", "temperature", "warm"),
        ("--temperature", "0.05", "temperature", "apgd_dice, which is not among the attacks"),
        ("--seed", "-1", "seed", "-1"),
        ("--seed", "x", "seed", "x"),
        ("--seed", "0.5", "seed", "0.5"),
        ("--nsd-tolerance", "-1", "nsd_tolerance", "-1"),
        ("--nsd-tolerance", "nan", "nsd_tolerance", "nan"),
        ("--nsd-tolerance", "inf", "nsd_tolerance", "inf"),
        ("--nsd-tolerance", "x", "nsd-tolerance", "x"),
        ("--max-cases", "0", "max_cases", "0"),
        ("--max-cases", "-1", "max_cases", "-1"),
        ("--max-cases", "all", "max-cases", "all"),
        ("--window-batch-size", "0", "window_batch_size", "0"),
        ("--window-batch-size", "-8", "window_batch_size", "-8"),
        ("--window-batch-size", "8.0", "window-batch-size", "8.0"),
        ("--graph-memory", "-1", "graph_memory", "-1"),
        ("--graph-memory", "2GiB", "graph-memory", "2GiB"),
    ]
]

TABLE = [*ATTACKS, *CONDITIONS, *BUDGETS, *STEPS, *NUMBERS]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses):
    refuses(main, row, "evaluation")
