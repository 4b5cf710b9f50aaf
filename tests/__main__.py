"""Check everything with one command, from any folder: `python3 tests`.

The first run makes a virtual environment in `.venv` and installs what `requirements.txt` beside
this file names; later runs reuse it. Then the linter, the formatter, the type checker and the tests
run, in that order; the first that fails ends the run with its exit code. Arguments go to pytest:
`python3 tests -k seed` runs the tests with "seed" in their name, `python3 tests -n 0` runs them one
after the other.
"""

import subprocess
import sys
import venv
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
REQUIREMENTS = TESTS / "requirements.txt"
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "made-for.txt"  # what the environment was made for; written last
PYTHON = ENVIRONMENT / "bin" / "python"


def main(arguments: list[str]) -> int:
    """Run every check until one fails; give its exit code, or 0."""
    steps = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],  # what and how strictly: pyproject.toml
        ["pytest", *arguments],
    ]
    exit_code = prepare_environment()
    for step in steps:
        if exit_code:
            break
        exit_code = run([str(PYTHON), "-m", *step])
    return exit_code


def prepare_environment() -> int:
    """Make `.venv`, unless it stands already for this Python and these requirements."""
    made_for = f"{sys.version}\n{REQUIREMENTS.read_text()}"
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == made_for:
        return 0
    print(f"making {ENVIRONMENT} (once)", flush=True)
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    exit_code = run([*pip, "--requirement", str(REQUIREMENTS)])
    if exit_code == 0:
        STAMP.write_text(made_for)
    return exit_code


def run(command: list[str]) -> int:
    """Run one command in the project's folder, without a keyboard; give its exit code."""
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it; the step under way has told the rest
