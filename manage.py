#!/usr/bin/env python
"""Django's command line for this project."""

import gc
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    gc.set_threshold(100_000, 50, 100)  # what is imported stays: looking for garbage in it takes a tenth of a start
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    try:
        from apps.audit import fence  # needs the settings

        fence.work_across_organizations()  # all that is done here; a server's pages have threads of their own
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        # A setting that is missing or malformed is the operator's to mend: one line, no traceback.
        sys.exit(f"Error: {error}")
