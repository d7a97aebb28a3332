"""`lngswr register`, `lngswr unregister` and `lngswr doctor`."""

import argparse

from nnunetv2_lngswr.cli.arguments import Commands

REGISTERED = {
    "registered": "registered",
    "updated": "updated to this version",
    "unchanged": "already registered, nothing to do",
}
UNREGISTERED = {"removed": "removed", "absent": "not registered, nothing to remove"}


def add_commands(commands: Commands) -> None:
    """Add the three commands."""
    command = commands.add_parser(
        "register", help="make nnU-Net's commands find the LNG-SWR trainers and planners"
    )
    command.set_defaults(run=_register)
    command = commands.add_parser("unregister", help="take them out of nnU-Net again")
    command.set_defaults(run=_unregister)
    command = commands.add_parser(
        "doctor", help="show what is installed, where, and what is wrong; changes nothing"
    )
    command.set_defaults(run=_doctor)


def _register(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.installation.register import register

    for change in register():
        print(f"{REGISTERED[change.action]}: {change.path}")
    return 0


def _unregister(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.installation.register import unregister

    for change in unregister():
        print(f"{UNREGISTERED[change.action]}: {change.path}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.installation.doctor import doctor

    findings = doctor()
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"{finding.state:5}  {finding.topic:{width}}  {finding.value}")
        if finding.fix:
            print(f"{'':5}  {'':{width}}  -> {finding.fix}")
    wrong = [finding.topic for finding in findings if finding.state == "wrong"]
    print(f"wrong: {', '.join(wrong)}" if wrong else "nothing needed is wrong")
    return 1 if wrong else 0
