"""Results of a benchmark, made by hand."""


def result(model, kind, text, dice, difference=None, trainings=2):
    interval = {"low": -0.1, "high": 0.1}
    row = {"model": model, "kind": kind, "epsilon_text": text, "dice": dice, "trainings": trainings}
    row["se_trainings"] = 0.01
    for of in ("", "_again"):
        reduction = 0.5 if difference and kind == "worst" else None
        row |= {f"difference{of}": difference, f"reduction{of}": reduction, f"p{of}_holm": 0.0123}
        for name, value in (("dice", dice), ("difference", difference), ("reduction", reduction)):
            for end, by in interval.items():
                row[f"{name}{of}_{end}"] = None if value is None else value + by
    return row
