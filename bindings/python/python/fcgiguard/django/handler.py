"""The applications that `runfcgi` serves, loaded in each worker.

Django imports the URLconf, and with it the views, at the first request. Here that happens before the worker says that it is ready,
so that a site with a fault in it does not replace one that works.
"""

from __future__ import annotations

from typing import Any


def _load_urls() -> None:
    from django.urls import get_resolver

    # Fails where a URLconf, or a view that it names, cannot be imported.
    get_resolver().url_patterns  # noqa: B018


def wsgi() -> Any:
    """settings.WSGI_APPLICATION, or Django's own."""
    from django.core.servers.basehttp import get_internal_wsgi_application

    application = get_internal_wsgi_application()
    _load_urls()
    return application


def asgi() -> Any:
    """settings.ASGI_APPLICATION, or Django's own."""
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.utils.module_loading import import_string

    django.setup()
    name = getattr(settings, "ASGI_APPLICATION", None)
    application = import_string(name) if name else get_asgi_application()
    _load_urls()
    return application
