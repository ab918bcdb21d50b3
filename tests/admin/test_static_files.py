"""What the templates load is there: under hashed names, a page that names a file which is not would fail whole."""

import re
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles import finders

LOADED = re.compile(r"{%\s*static\s+['\"]([^'\"]+)['\"]\s*%}")


def test_every_static_file_that_a_template_names_is_there() -> None:
    templates = Path(settings.BASE_DIR, "templates").rglob("*.html")
    named = {(path.name, name) for path in templates for name in LOADED.findall(path.read_text())}
    assert named
    assert {(path, name) for path, name in named if finders.find(name) is None} == set()
