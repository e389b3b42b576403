MODULE = FCGI::Guard  PACKAGE = FCGI::Guard::Client::Handle  PREFIX = client_

# What lib/FCGI/Guard/Client.pm is made of: one handle, bytes in and out. Included by Guard.xs, which has CALL and throw.
# A define, since a typedef would have to stand before the first MODULE line of Guard.xs.

#define FCGI__Guard__Client__Handle fcgiguard_client *

FCGI::Guard::Client::Handle
client_new_handle()
  CODE:
    RETVAL = fcgiguard_client_new();
  OUTPUT:
    RETVAL

void
client_set(client, name, value)
    FCGI::Guard::Client::Handle client
    const char *name
    const char *value
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_client_set(client, name, value, error));

void
client_connect(client, address)
    FCGI::Guard::Client::Handle client
    const char *address
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_client_connect(client, address, error));

void
client_param(client, name, value)
    FCGI::Guard::Client::Handle client
    SV *name
    SV *value
  PREINIT:
    int32_t code;
    STRLEN name_len, value_len;
    const char *name_at, *value_at;
  CODE:
    name_at = SvPVbyte(name, name_len);
    value_at = SvPVbyte(value, value_len);
    CALL(code, fcgiguard_client_param(client, (const uint8_t *)name_at, name_len, (const uint8_t *)value_at, value_len, error));

void
client_begin(client)
    FCGI::Guard::Client::Handle client
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_client_begin(client, error));

# Writes a part of the bytes, from an offset on; how many were taken.
IV
client_write(client, bytes, from = 0)
    FCGI::Guard::Client::Handle client
    SV *bytes
    UV from
  PREINIT:
    STRLEN len;
    const char *at;
  CODE:
    at = SvPVbyte(bytes, len);
    if (from > len) from = len;
    CALL(RETVAL, fcgiguard_client_write(client, (const uint8_t *)at + from, len - from, error));
  OUTPUT:
    RETVAL

void
client_end(client)
    FCGI::Guard::Client::Handle client
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_client_end(client, error));

# (1 STDOUT or 2 STDERR, bytes), or (0) at the end.
void
client_read(client)
    FCGI::Guard::Client::Handle client
  PREINIT:
    int32_t kind;
    const uint8_t *bytes = NULL;
    size_t len = 0;
  PPCODE:
    CALL(kind, fcgiguard_client_read(client, &bytes, &len, error));
    mXPUSHi(kind);
    if (kind > 0) mXPUSHp((const char *)bytes, len);

# The HTTP status and an array of [name, value].
void
client_head(client)
    FCGI::Guard::Client::Handle client
  PREINIT:
    int32_t status, more;
    size_t at, name_len = 0, value_len = 0;
    const uint8_t *name = NULL, *value = NULL;
    AV *fields, *pair;
  PPCODE:
    CALL(status, fcgiguard_client_head(client, error));
    fields = (AV *)sv_2mortal((SV *)newAV());
    for (at = 0;; at++) {
        CALL(more, fcgiguard_client_header_at(client, at, &name, &name_len, &value, &value_len, error));
        if (more == 0) break;
        pair = newAV();
        av_push(pair, newSVpvn((const char *)name, name_len));
        av_push(pair, newSVpvn((const char *)value, value_len));
        av_push(fields, newRV_noinc((SV *)pair));
    }
    mXPUSHi(status);
    XPUSHs(sv_2mortal(newRV_inc((SV *)fields)));

IV
client_app_status(client)
    FCGI::Guard::Client::Handle client
  CODE:
    RETVAL = (IV)fcgiguard_client_app_status(client);
  OUTPUT:
    RETVAL

IV
client_protocol_status(client)
    FCGI::Guard::Client::Handle client
  CODE:
    RETVAL = fcgiguard_client_protocol_status(client);
  OUTPUT:
    RETVAL

int
client_is_connected(client)
    FCGI::Guard::Client::Handle client
  CODE:
    RETVAL = fcgiguard_client_is_connected(client);
  OUTPUT:
    RETVAL

void
client_abort(client)
    FCGI::Guard::Client::Handle client
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_client_abort(client, error));

void
client_close(client)
    FCGI::Guard::Client::Handle client
  PREINIT:
    int32_t code;
  CODE:
    CALL(code, fcgiguard_client_close(client, error));

void
client_DESTROY(client)
    FCGI::Guard::Client::Handle client
  CODE:
    fcgiguard_client_free(client);
