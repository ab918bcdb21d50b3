"""What Zappa runs before it packages the project for AWS Lambda."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def collect_static_files() -> None:
    """Gather the admin's static files for the package: a function's disk is read-only.

    Raises `subprocess.CalledProcessError` if Django cannot.
    """
    subprocess.run(
        [sys.executable, "manage.py", "collectstatic", "--noinput", "--clear", "--verbosity", "0"],
        cwd=ROOT,
        env={**os.environ, "ENVIRONMENT": "production"},
        check=True,
    )
