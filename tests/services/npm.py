"""Packages of npm's that tests use, where Node.js is: each in a folder with a lock file of its own."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from fasteners import InterProcessLock

OLDEST_NODE = 20


def install(folder: Path, name: str) -> None:
    """Install what a folder's lock file says. Skips the test where Node.js, or a registry to get it from, is absent."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip(f"needs Node.js and npm for {name}")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"needs Node.js {OLDEST_NODE} or newer for {name}")
    with InterProcessLock(Path(tempfile.gettempdir()) / f"lcp-{folder.name}-{os.getuid()}.lock"):
        if (folder / "node_modules" / ".package-lock.json").exists():  # what npm writes last
            return
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode != 0:
            pytest.skip(f"needs {name}, which could not be installed")
