# /srv/shop/settings.py, at its end
INSTALLED_APPS = [*INSTALLED_APPS, "fcgiguard.django"]  # noqa: F821 - set above, where this is pasted
FCGIGUARD = {
    "listen": "unix:/run/shop/app.sock",
    "control": "unix:/run/shop/app.ctl",
    "workers": 4,
    "request_timeout": "60s",
    "max_memory": "300M",
}
