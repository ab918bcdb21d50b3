"""No file of the repository holds a secret. The rules are the product's own, those that guard requests."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.orgs import keys
from apps.policies.guardrails.scan import scan
from tests.services.server import ROOT

KNOWN = {
    "postgres://postgres:postgres@127.0.0.1",  # a database that lives as long as its test run
    "postgres://user:password@127.0.0.1",
    "smtp+tls://user:password@host",  # what EMAIL_URL looks like
    "AKIAZQ3DRSTUVWXY2345",  # the README's example of what is blocked
    "AKIAIOSFODNN7EXAMPLE",  # AWS's own example
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "sk-proj-abcDEF1234567890",
}
"""Values that look like secrets and open nothing. Whoever adds one says here that it does not."""
GENERIC = {"key_assignment", "password_assignment", "credentials_in_url"}
"""Rules that go by the word beside a value. Tests are full of such values, so there only issuers' formats count."""
MADE_UP = {"tests", "torture", "bench", "screens"}


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository that the files are tracked in")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def secrets_in(path: Path, text: str) -> Iterator[str]:
    """Yield where a text holds what may be a secret, by file, line and rule, and never the value."""
    for finding in scan(text):
        value = text[finding.start : finding.end]
        is_made_up = finding.rule in GENERIC and (path.parts[0] in MADE_UP or "${" in value)
        if finding.detector == "secret" and not is_made_up and value not in KNOWN:
            yield f"{path}:{text.count(chr(10), 0, finding.start) + 1}: {finding.rule}"


def test_no_tracked_file_holds_a_secret() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # a picture or the like
        found += secrets_in(path.relative_to(ROOT), text)
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        f"key = '{keys.new_text()}'",
        "AWS: AKIA" + "Q3DRSTUVWXYZ2345",
        "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq8s\n-----END RSA PRIVATE KEY-----",
        "token: ghp" + "_16C7e42F292c6912E7710c838347Ae178B4a",
    ],
    ids=["a key of ours", "of AWS", "a private key", "of GitHub"],
)
def test_a_secret_would_be_found_and_not_shown(text: str) -> None:
    (found,) = secrets_in(Path("docs/page.md"), f"first line\n{text}\n")
    assert found.startswith("docs/page.md:2: ")
    assert text.rsplit(maxsplit=1)[-1] not in found


def test_no_file_of_secrets_is_tracked() -> None:
    names = {path.name for path in tracked()}
    assert not {".env", ".demo.json", "secrets.json", "id_rsa", "credentials"} & names
    assert not [path for path in tracked() if path.suffix in {".pem", ".key", ".p12", ".pfx", ".sqlite3"}]
