"""Commands, nnU-Net's and ours, run as a user would type them, each with a log."""
import collections
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

NOTHING = r"(?!)"  # matches no line


def run_command(
    command: Sequence, log: Path, *, environment: Mapping[str, str], say: Callable[[str], None], show: str = NOTHING
) -> None:
    """Runs one command of this Python's environment with its output in `log`; says it, and passes on the lines that match `show`, without
    nnU-Net's time stamps. `environment` is added to this process's. Raises ValueError with its last lines if it fails."""
    command = [str(part) for part in command]
    say("$ " + shlex.join(command))
    log.parent.mkdir(parents=True, exist_ok=True)
    tail = collections.deque(maxlen=12)
    with open(log, "w", encoding="utf-8") as file, subprocess.Popen(
        [beside_python(command[0]), *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, errors="replace", env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
    ) as process:
        try:
            for line in process.stdout:
                file.write(line)
                tail.append(line.rstrip())
                if re.search(show, line.rstrip()):
                    say("    " + re.sub(r"^\d{4}-\d\d-\d\d [\d:.]+: ", "", line.rstrip()))
        except BaseException:  # Ctrl-C: no training may go on in the background
            process.terminate()
            raise
    if process.returncode != 0:
        last = "\n".join("    " + line for line in tail)
        raise ValueError(f"{command[0]} failed (exit status {process.returncode}); its last lines, all of them in {log}:\n{last}")


def beside_python(command: str) -> str:
    """The command of the environment that runs this, whether or not that environment is activated."""
    beside = shutil.which(command, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(command)
    if found is None:
        raise ValueError(f"{command} was found neither beside {sys.executable} nor on the PATH: is nnunetv2 installed? (lngswr doctor)")
    return found
