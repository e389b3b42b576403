"""The app's entry in INSTALLED_APPS."""

from django.apps import AppConfig


class FcgiguardConfig(AppConfig):
    """Registers the system checks; has no models."""

    name = "fcgiguard.django"
    label = "fcgiguard"
    verbose_name = "FastCGI"

    def ready(self) -> None:
        from . import checks  # noqa: F401  registers itself
