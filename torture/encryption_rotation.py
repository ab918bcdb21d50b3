"""Two rotations of data keys that meet."""

from pathlib import Path

from django.db import transaction

from apps.orgs.models import ProviderCredential
from tests.encryption.kept import read, rotate
from tests.encryption.test_rotation import Rotation, Shop, database_url
from tests.mock_upstream import MockUpstream
from torture import Figures, long_test


@long_test(seconds=120)
def rotations_at_once(folder: Path) -> Figures:
    """Each secret is encrypted anew once, whichever of two rotations comes to it, and is served all the while."""
    with MockUpstream() as upstream:
        shop = Shop(upstream)
        rotate("--data-keys")
        with transaction.atomic():
            ProviderCredential.objects.select_for_update().get(pk=shop.rows[0].pk)
            first = Rotation(database_url(), "--data-keys")
            first.wait_until_it_waits()
        rotate("--data-keys")
        assert first.wait() == 0
        assert [read(row).secret() for row in shop.rows] == shop.secrets
        rotate("--data-keys")
        assert len(set(shop.keys())) == 1
        shop.serves(folder)
        return {"secrets": len(shop.rows)}
