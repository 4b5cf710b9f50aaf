"""A virtual environment for the other systems, made once in `.venv-benchmarks`."""

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
FOLDER = HERE.parent / ".venv-benchmarks"
PYTHON = FOLDER / "bin" / "python"
STAMP = FOLDER / "made-for.txt"  # what it was made for; written last


def python() -> str | None:
    """The environment's Python; it is made now if need be. None when that fails, and it says so."""
    made_for = f"{sys.version}\n{REQUIREMENTS.read_text(encoding='utf-8')}"
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == made_for:
        return str(PYTHON)
    print(f"making {FOLDER} (once)", file=sys.stderr)
    venv.create(FOLDER, clear=True, with_pip=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--requirement", str(REQUIREMENTS)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        print(f"pip could not install what {REQUIREMENTS.name} names", file=sys.stderr)
        return None
    STAMP.write_text(made_for, encoding="utf-8")
    return str(PYTHON)


def versions() -> dict[str, str]:
    """The packages that `requirements.txt` pins, by name."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if "==" in line]
    return dict(pins)
