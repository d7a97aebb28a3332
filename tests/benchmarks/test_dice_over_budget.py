"""The curve of an arm: its own rows alone, clean first, in percent."""

from benchmarks.dice_over_budget import curve


def test_a_curve_begins_clean_and_goes_by_budget():
    def row(model, kind, text, dice):
        return {
            "model": model,
            "kind": kind,
            "epsilon_text": text,
            "dice": dice,
            "dice_low": dice - 0.1,
            "dice_high": dice + 0.1,
        }

    results = [
        row("AT", "worst", "8/255", 0.5),
        row("AT", "clean", None, 0.75),
        row("AT", "worst", "4/255", 0.625),
        row("AT", "attack", "4/255", 0.7),
        row("vanilla", "worst", "4/255", 0.1),
    ]
    found = curve({"results": results}, "AT")
    assert [(round(b), round(d, 1), round(low), round(high)) for b, d, low, high in found] == [
        (0, 75.0, 65, 85),
        (4, 62.5, 52, 72),
        (8, 50.0, 40, 60),
    ]
