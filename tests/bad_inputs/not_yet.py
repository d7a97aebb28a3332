NOT_YET = {
    "evaluate models: plans: patch of 7 axes": "area-s1models: never ends",
    "evaluate options: epsilon 1e99999999": "area-s4stats: never ends",
    "evaluate options: epsilon 1e-99999999": "area-s4stats: never ends",
    "evaluate options: -step_size 1e-9": "area-s4stats: never ends",
    "evaluate options: --restarts 99999999999999999999999": "area-s4stats: never ends",
    "overhead: output is a file": "area-s5runs: never ends",
    "paper: configuration inherits from itself": "area-s5runs: never ends",
}
