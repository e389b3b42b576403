"""FastCGI for Django: put "fcgiguard.django" into INSTALLED_APPS, then `manage.py runfcgi` and `manage.py fcgistatus`.

Options may stand in the settings, as those of `fcgiguard.serve`:

    FCGIGUARD = {"listen": "unix:/run/site.sock", "workers": 4, "control": "unix:/run/site.control"}
"""
