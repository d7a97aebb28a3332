"""`lngswr demo`: its options arrive."""

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.experiments import demo


def test_demo_hands_its_options_on(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        demo, "run_demo", lambda *args, **options: seen.update(args=args, options=options)
    )
    assert cli.main(["demo", "-o", "there", "--sets", "2d", "--overwrite"]) == 0
    assert seen["args"] == ("there", ["2d"], "cpu")
    assert seen["options"]["overwrite"] is True
    cli.main(["demo"])
    assert seen["args"] == ("lngswr_demo", ["2d", "3d"], "cpu")
    assert seen["options"]["overwrite"] is False
