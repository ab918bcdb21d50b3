"""A stored secret is readable in one place only: its row, its organization, its column, and the address it is for."""

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from apps.orgs import encryption
from apps.orgs.encryption import DecryptionError, Place, Purpose
from apps.orgs.models import ProviderCredential
from tests.encryption.kept import an_organization, execute, kept, key_of, read, without_triggers

SECRET, OTHER = "sk-the-secret-of-one-row", "sk-the-secret-of-another"
Tamper = Callable[[ProviderCredential, ProviderCredential], None]


def other_row(row: ProviderCredential, other: ProviderCredential) -> None:
    execute(
        "UPDATE orgs_providercredential SET encrypted_secret = %s, data_key_id = %s WHERE id = %s",
        other.encrypted_secret,
        other.data_key_id,
        row.id,
    )


def other_column(row: ProviderCredential, other: ProviderCredential) -> None:
    """As if the ciphertext came from a second secret of the same row."""
    key = key_of(row)
    place = replace(row._place(key), column="another_secret")
    stored = encryption.encrypt(SECRET, key.open(), place)
    execute("UPDATE orgs_providercredential SET encrypted_secret = %s WHERE id = %s", stored, row.id)


def other_address(row: ProviderCredential, other: ProviderCredential) -> None:
    execute("UPDATE orgs_providercredential SET base_url = 'https://evil.example/v1' WHERE id = %s", row.id)


def other_provider(row: ProviderCredential, other: ProviderCredential) -> None:
    execute("UPDATE orgs_providercredential SET provider = 'openai_compatible' WHERE id = %s", row.id)


def other_id(row: ProviderCredential, other: ProviderCredential) -> None:
    moved = uuid4()
    execute("UPDATE orgs_providercredential SET id = %s WHERE id = %s", moved, row.id)
    row.id = moved


def other_data_key(row: ProviderCredential, other: ProviderCredential) -> None:
    execute("UPDATE orgs_providercredential SET data_key_id = %s WHERE id = %s", other.data_key_id, row.id)


def no_data_key(row: ProviderCredential, other: ProviderCredential) -> None:
    execute("UPDATE orgs_providercredential SET data_key_id = NULL WHERE id = %s", row.id)


def other_wrapped_key(row: ProviderCredential, other: ProviderCredential) -> None:
    execute("UPDATE orgs_datakey SET wrapped = %s WHERE id = %s", key_of(other).wrapped, row.data_key_id)


def other_owner_of_the_key(row: ProviderCredential, other: ProviderCredential) -> None:
    execute("UPDATE orgs_datakey SET organization_id = NULL, retired_at = now() WHERE id = %s", row.data_key_id)


def other_wrapping(row: ProviderCredential, other: ProviderCredential) -> None:
    execute("UPDATE orgs_datakey SET wrapped_by = 'rot13:a' WHERE id = %s", row.data_key_id)


def altered(row: ProviderCredential, other: ProviderCredential) -> None:
    stored = f"{row.encrypted_secret[:-5]}AAAA{row.encrypted_secret[-1]}"
    execute("UPDATE orgs_providercredential SET encrypted_secret = %s WHERE id = %s", stored, row.id)


def garbage(row: ProviderCredential, other: ProviderCredential) -> None:
    execute("UPDATE orgs_providercredential SET encrypted_secret = 'v2.ü' WHERE id = %s", row.id)


OF_THE_ROW: list[Tamper] = [
    other_row,
    other_column,
    other_address,
    other_provider,
    other_id,
    no_data_key,
    altered,
    garbage,
]
OF_THE_KEY: list[Tamper] = [other_data_key, other_wrapped_key, other_owner_of_the_key, other_wrapping]


def refuses(row: ProviderCredential, other: ProviderCredential, tamper: Tamper) -> None:
    tamper(row, other)
    with pytest.raises(DecryptionError) as refused:
        read(row).secret()
    assert SECRET not in repr(refused.value)
    assert OTHER not in repr(refused.value)
    assert read(other).secret() == OTHER


@pytest.mark.parametrize("tamper", [*OF_THE_ROW, *OF_THE_KEY])
def test_what_comes_from_another_organization_or_is_altered_does_not_decrypt(
    tamper: Tamper, postgres_only: None
) -> None:
    refuses(kept(an_organization(), SECRET), kept(an_organization(), OTHER), tamper)


@pytest.mark.parametrize("tamper", OF_THE_ROW)
def test_what_comes_from_another_row_of_the_organization_does_not_decrypt(tamper: Tamper, postgres_only: None) -> None:
    organization = an_organization()
    refuses(kept(organization, SECRET), kept(organization, OTHER), tamper)


def test_a_row_that_is_moved_to_another_organization_with_its_key_does_not_decrypt() -> None:
    home, elsewhere = an_organization(), an_organization()
    row = kept(home, SECRET)
    with without_triggers():  # which would keep the row where it is
        execute("UPDATE orgs_providercredential SET organization_id = %s WHERE id = %s", elsewhere.id, row.id)
        execute("UPDATE orgs_datakey SET organization_id = %s WHERE id = %s", elsewhere.id, row.data_key_id)
    with pytest.raises(DecryptionError):
        read(row).secret()


def test_organizations_and_the_platform_have_keys_of_their_own() -> None:
    rows = [kept(an_organization(), SECRET), kept(an_organization(), SECRET), kept(None, SECRET)]
    keys = [key_of(row) for row in rows]
    assert len({key.open() for key in keys}) == 3
    assert [key.organization_id for key in keys] == [row.organization_id for row in rows]
    for row, key in zip(rows, keys, strict=True):
        assert row.secret() == SECRET
        assert key.open().hex() not in key.wrapped
        for another in (other for other in keys if other != key):
            with pytest.raises(DecryptionError):
                encryption.decrypt(row.encrypted_secret, another.open(), row._place(key))


def test_rows_of_an_organization_share_its_current_key_and_one_secret_looks_different_each_time() -> None:
    organization = an_organization()
    first, second = kept(organization, SECRET), kept(organization, SECRET)
    assert first.data_key_id == second.data_key_id
    assert first.encrypted_secret != second.encrypted_secret


def test_no_two_places_are_bound_by_the_same_bytes() -> None:
    """Values of one field cannot run over into the next."""
    place = Place(None, "t", "c", uuid4(), uuid4(), ("a", "b"))
    others = [
        replace(place, table="tc", column=""),
        replace(place, bound=("ab",)),
        replace(place, bound=('a", "b',)),
        replace(place, bound=("a",)),
        replace(place, organization=uuid4()),
    ]
    assert len({found.associated_data() for found in [place, *others]}) == 6


def count(purpose: Purpose, outcome: str) -> float:
    labels = {"purpose": purpose.value, "outcome": outcome}
    return REGISTRY.get_sample_value("lcp_decryptions_total", labels) or 0.0


def test_each_decryption_is_counted_by_purpose_and_outcome() -> None:
    row = kept(an_organization(), SECRET)
    before = [count(Purpose.CALL, "ok"), count(Purpose.CHECK, "ok"), count(Purpose.CALL, "failed")]
    row.secret()
    row.secret()
    assert row.readable() is True
    other_address(row, row)
    with pytest.raises(DecryptionError):
        read(row).secret()
    after = [count(Purpose.CALL, "ok"), count(Purpose.CHECK, "ok"), count(Purpose.CALL, "failed")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 1, 1]
