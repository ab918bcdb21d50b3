"""The evidence pack: what is in it, and that a change of it is found and named."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from apps.policies.models import Policy
from tests.api.cast import Cast, gather, unique
from tests.exports.test_exports import content, nothing_waits, ordered  # noqa: F401  (a fixture among them)
from tests.search.test_search import recorded


@pytest.fixture(scope="module")
def cast() -> Cast:
    return gather()


@pytest.fixture(scope="module")
def packed(cast: Cast) -> bytes:
    theirs = Policy(
        organization=cast.elsewhere, name="theirs", kind="model_restriction", config={"allow": ["theirs-*"]}
    )
    own = Policy(organization=cast.organization, name=unique("own"), kind="model_restriction", config={"allow": ["a"]})
    for policy in (own, own, theirs):
        policy.save()
    stamps = [{"id": str(own.pk), "version": 1, "name": own.name}, {"id": str(theirs.pk), "version": 1, "name": "said"}]
    for number in range(3):
        recorded(cast.organization.id, prompt=f"prompt {number}", policies=stamps)
    recorded(cast.elsewhere.id, prompt="of others")
    cast.admin.made("applications", {"organization": str(cast.organization.id), "name": "made in that time"})
    cast.outsider.made("applications", {"organization": str(cast.elsewhere.id), "name": "of others"})
    export = ordered(cast.auditor, kind="evidence", reason="the yearly audit")
    assert export["state"] == "done", export
    return content(cast.auditor, export)


@pytest.fixture
def pack(packed: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "pack.zip"
    path.write_bytes(packed)
    return path


def lines(pack: Path, name: str) -> list[dict[str, Any]]:
    with zipfile.ZipFile(pack) as archive:
        return [json.loads(line) for line in archive.read(name).splitlines()]


def test_a_pack_holds_records_versions_and_changes_of_its_organization_alone(cast: Cast, pack: Path) -> None:
    assert {one["prompt_redacted"] for one in lines(pack, "records.jsonl")} == {"prompt 2", "prompt 1", "prompt 0"}
    versions = {one["name"]: one for one in lines(pack, "policy_versions.jsonl")}
    assert [one["version"] for one in versions.values()] == [1, 1]
    assert {"config" in one for one in versions.values() if one["name"] != "said"} == {True}
    assert "config" not in versions["said"]
    changes = lines(pack, "changes.jsonl")
    assert "made in that time" in {one["object_name"] for one in changes}
    assert {one["organization_id"] for one in changes} == {str(cast.organization.id)}
    with zipfile.ZipFile(pack) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        everything = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert (manifest["records"], manifest["reason"]) == (3, "the yearly audit")
    assert "of others" not in everything
    assert "theirs-" not in everything


def test_a_whole_pack_is_confirmed_by_the_command_and_by_the_script_inside(pack: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    call_command("verify_evidence", str(pack), stdout=said)
    assert "Every file is as the manifest says." in said.getvalue()
    with zipfile.ZipFile(pack) as archive:
        archive.extract("verify.py", tmp_path)
    script = [sys.executable, "-I", str(tmp_path / "verify.py"), str(pack)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, said.getvalue())


def rewritten(pack: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(pack) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(pack, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda files: files.update({"records.jsonl": files["records.jsonl"].replace(b"prompt 1", b"prompt 9")}),
         "records.jsonl was changed"),
        (lambda files: files.update({"records.jsonl": b"\n".join(files["records.jsonl"].splitlines()[1:]) + b"\n"}),
         "records.jsonl has 2 lines, the manifest says 3"),
        (lambda files: files.pop("changes.jsonl"), "changes.jsonl is missing"),
        (lambda files: files.update({"extra.txt": b"x"}), "extra.txt is not in the manifest"),
        (lambda files: files.pop("manifest.json"), "manifest.json is missing"),
        (lambda files: files.update({"manifest.json": b"[" * 100_000}), "manifest.json is missing or cannot be read"),
    ],
)  # fmt: skip
def test_each_change_of_a_pack_is_found_and_named(pack: Path, change: Callable[..., Any], named: str) -> None:
    rewritten(pack, change)
    with pytest.raises(CommandError, match=named):
        call_command("verify_evidence", str(pack))


def test_half_a_pack_a_flipped_bit_and_no_pack_at_all_are_told(pack: Path, tmp_path: Path) -> None:
    whole = pack.read_bytes()
    pack.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CommandError, match="not a whole ZIP archive"):
        call_command("verify_evidence", str(pack))
    at = whole.index(b"records.jsonl") + 200
    pack.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(CommandError, match=r"records\.jsonl"):
        call_command("verify_evidence", str(pack))
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("verify_evidence", str(tmp_path / "nowhere.zip"))
