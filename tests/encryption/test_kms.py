"""Data keys under AWS KMS: KMS checks whose key it is, and while it is away nothing is given up."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from django.conf import settings
from django.db import transaction
from django.test import override_settings
from moto.server import ThreadedMotoServer

from apps.gateway import configuration
from apps.gateway.models import ModelRoute
from apps.orgs import wrapping
from apps.orgs.data_keys import OPEN
from apps.orgs.encryption import DecryptionError, KeysUnavailable
from apps.orgs.models import DataKey, ProviderCredential
from apps.policies.models import Price
from tests.admin.cast import address, filled, gather
from tests.api.cast import error_of
from tests.api.cast import gather as gather_api
from tests.encryption.kept import an_organization, execute, kept, key_of, read, rotate
from tests.gateway.house import House, chat, pipeline, run
from tests.mock_upstream import MockUpstream

SECRET = "sk-the-secret-under-kms"
REGION = "eu-central-1"


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def forget() -> None:
    OPEN.clear()
    wrapping._made_client.cache_clear()
    wrapping._away_until.clear()


@pytest.fixture
def kms(aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of KMS, which this process uses too.

    What was wrapped by it is wrapped by the ring again afterwards; what a test made unreadable goes, since other files'
    tests encrypt everything anew.
    """
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": aws,
    }.items():
        monkeypatch.setenv(name, value)
    forget()
    yield boto3.client("kms")
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    forget()
    rotate()
    unreadable = DataKey.objects.filter(wrapped_by__startswith="kms:")
    ProviderCredential.objects.filter(data_key__in=unreadable).delete()
    unreadable.delete()
    forget()


@pytest.fixture
def key(kms: Any) -> Iterator[str]:
    """A key of KMS that wraps what this test stores."""
    arn = str(kms.create_key()["KeyMetadata"]["Arn"])
    with override_settings(KMS_KEY_ID=arn):
        yield arn


def test_a_data_key_is_wrapped_by_kms_for_its_organization_alone(kms: Any, key: str) -> None:
    row, other = kept(an_organization(), SECRET), kept(an_organization(), SECRET)
    stored = key_of(row)
    assert stored.wrapped_by == f"kms:{key}"
    forget()
    assert read(row).secret() == SECRET
    blob = wrapping.base64.b64decode(stored.wrapped)
    context = {"organization": str(row.organization_id), "data_key": str(stored.pk)}
    assert kms.decrypt(CiphertextBlob=blob, EncryptionContext=context)["Plaintext"] == stored.open()
    execute("UPDATE orgs_datakey SET wrapped = %s WHERE id = %s", stored.wrapped, other.data_key_id)
    with pytest.raises(DecryptionError):
        read(other).secret()


def test_an_alias_names_the_key_and_the_key_is_what_is_stored(kms: Any) -> None:
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/control-plane", TargetKeyId=arn)
    with override_settings(KMS_KEY_ID="alias/control-plane"):
        assert wrapping.current() == f"kms:{arn}"
        assert key_of(kept(an_organization(), SECRET)).wrapped_by == f"kms:{arn}"


def test_data_keys_move_from_the_ring_to_kms_from_key_to_key_and_back(kms: Any) -> None:
    row = kept(an_organization(), SECRET)
    for _ in range(2):
        arn = kms.create_key()["KeyMetadata"]["Arn"]
        with override_settings(KMS_KEY_ID=arn):
            rotate()
            forget()
            assert key_of(row).wrapped_by == f"kms:{arn}"
            assert read(row).secret() == SECRET
    rotate()
    assert key_of(row).wrapped_by == f"local:{next(iter(settings.ENCRYPTION_KEYS))}"
    assert read(row).secret() == SECRET


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have KMS gone, as far as this process can tell."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
    forget()


def test_while_kms_is_away_open_keys_serve_and_others_are_unavailable(
    key: str, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, other = kept(an_organization(), SECRET), kept(an_organization(), SECRET)
    away(monkeypatch)
    with pytest.raises(KeysUnavailable):
        read(row).secret()
    assert read(row).readable() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    forget()
    assert read(other).secret() == SECRET


@pytest.mark.parametrize("code", ["DisabledException", "AccessDeniedException", "KMSInvalidStateException"])
def test_a_key_that_kms_refuses_for_now_is_unavailable_and_not_given_up(key: str, code: str) -> None:
    row = kept(an_organization(), SECRET)
    forget()
    # The server of these tests opens disabled keys, too: the answer is the real KMS's, played by its own client.
    with Stubber(wrapping._client(REGION)) as played:
        played.add_client_error("decrypt", code)
        with pytest.raises(KeysUnavailable), transaction.atomic():
            read(row).set_secret("sk-another")
    assert DataKey.objects.get(pk=row.data_key_id).retired_at is None
    assert read(row).secret() == SECRET


def test_a_model_whose_key_was_unavailable_is_served_once_it_is_there_again(
    key: str, aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(wrapping, "SPARED_SECONDS", 0.0)
    with MockUpstream() as upstream:
        house = House(allow=("*",))
        row = kept(house.organization, SECRET, provider="openai_compatible", base_url=upstream.base_url)
        ModelRoute.objects.create(organization=house.organization, model="under-kms", credential=row)
        rates = {"input_nano_usd": 10**9, "output_nano_usd": 10**9}
        Price.objects.get_or_create(provider="openai_compatible", model="under-kms", defaults=rates)
        away(monkeypatch)

        async def work() -> list[int]:
            async with pipeline(tmp_path) as built:
                statuses = [(await built.complete_chat(chat(house.key, "under-kms"))).status]
                monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
                forget()
                return [*statuses, (await built.complete_chat(chat(house.key, "under-kms"))).status]

        assert run(work) == [503, 200]
        assert [call.headers["authorization"] for call in upstream.calls] == [f"Bearer {SECRET}"]


def test_a_secret_that_cannot_be_encrypted_now_is_told_so_and_nothing_is_stored(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast, api = gather(), gather_api()
    away(monkeypatch)
    name = f"never stored {cast.home.marker}"
    form = {"name": name, "provider": "openai", "secret": SECRET}
    client, url = cast.browser("superadmin"), address(ProviderCredential, "add")
    # Its own organization has a key that is held open; a new one has none.
    answer = filled(client, url, **form, organization=str(an_organization().pk))
    assert answer.status_code == 302
    page = client.get(answer.url).content.decode()
    assert "the key service does not answer" in page
    body = {"organization": str(api.organization.pk), "name": name, "provider": "openai", "secret": SECRET}
    refused = error_of(api.admin.post("provider-credentials", body), 503, "SERVICE_UNAVAILABLE")
    assert SECRET not in str(refused) + page
    assert not ProviderCredential.objects.filter(name=name).exists()
