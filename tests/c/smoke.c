/* The tables, the error object and the small calls answer as their comments in fcgiguard.h say. */
#include <fcgiguard.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed, failed;

static void check(int ok, const char *what, int line)
{
    if (ok) {
        passed++;
    } else {
        failed++;
        printf("line %d: %s\n", line, what);
    }
}

#define CHECK(condition) check((condition) != 0, #condition, __LINE__)

static int is(int32_t code, const char *name)
{
    const char *found = fcgiguard_code_name(code);
    return found && strcmp(found, name) == 0;
}

static int filled(const char *text)
{
    return text && *text && !strchr(text, '\n');
}

/* A code has a name, an advice and a number of its own; the walk ends and stays ended. */
static void codes(void)
{
    size_t at, other, count = 0;
    int sound = 1, unique = 1;

    while (fcgiguard_code_at(count)) count++;
    for (at = 0; at < count; at++) {
        int32_t code = fcgiguard_code_at(at);
        if (code >= 0 || !filled(fcgiguard_code_name(code)) || !filled(fcgiguard_code_advice(code))) {
            sound = 0;
            printf("code %ld lacks a name or an advice\n", (long)code);
        }
        for (other = 0; other < at; other++)
            if (fcgiguard_code_at(other) == code || is(fcgiguard_code_at(other), fcgiguard_code_name(code))) unique = 0;
    }
    CHECK(count > 50);
    CHECK(sound);
    CHECK(unique);
    CHECK(fcgiguard_code_at(count + 1) == 0 && fcgiguard_code_at((size_t)-1) == 0);
    CHECK(strcmp(fcgiguard_code_name(0), "ok") == 0);
    CHECK(fcgiguard_code_name(1) == NULL && fcgiguard_code_advice(-12345) == NULL && fcgiguard_code_name(INT32_MIN) == NULL);
    /* Numbers are never reused: these are in programs by now. */
    CHECK(is(-107, "wrong_process") && is(-201, "invalid_address") && is(-501, "busy") && is(-502, "refused"));
}

/* An option has a text, a kind and a default; setting the default changes nothing ("60s" may be told as "1m"). */
static void options(fcgiguard_pool *pool, fcgiguard_error *error)
{
    char before[256];
    size_t at, other, count = 0;
    int sound = 1, unique = 1, same = 1;

    while (fcgiguard_option_name(count)) count++;
    for (at = 0; at < count; at++) {
        const char *name = fcgiguard_option_name(at), *value = fcgiguard_option_default(name), *has;
        if (!filled(name) || !value || !filled(fcgiguard_option_text(name)) || !filled(fcgiguard_option_kind(name))) {
            sound = 0;
            printf("option %s is not told in full\n", name);
            continue;
        }
        has = fcgiguard_pool_get(pool, name);
        snprintf(before, sizeof before, "%s", has ? has : "NULL");
        if (*value && fcgiguard_pool_set(pool, name, value, error) < 0) {
            same = 0;
            printf("option %s: its default %s is refused: %s\n", name, value, fcgiguard_error_message(error));
        }
        has = fcgiguard_pool_get(pool, name);
        if (!has || strcmp(has, before) != 0) {
            same = 0;
            printf("option %s: default %s, a new pool has %s, setting the default makes it %s\n", name, value, before, has ? has : "NULL");
        }
        for (other = 0; other < at; other++)
            if (strcmp(fcgiguard_option_name(other), name) == 0) unique = 0;
    }
    CHECK(count > 50);
    CHECK(sound);
    CHECK(same);
    CHECK(unique);
    CHECK(fcgiguard_option_name(count + 1) == NULL && fcgiguard_option_name((size_t)-1) == NULL);
    CHECK(!fcgiguard_option_default("nonsense") && !fcgiguard_option_text("nonsense") && !fcgiguard_option_kind(""));
    CHECK(fcgiguard_option_exec_only("user") == 1 && fcgiguard_option_exec_only("workers") == 0);
    CHECK(fcgiguard_option_exec_only("nonsense") == -1 && fcgiguard_option_exec_only("") == -1);

    CHECK(fcgiguard_pool_set(pool, "workers", "7", error) >= 0 && strcmp(fcgiguard_pool_get(pool, "workers"), "7") == 0);
    CHECK(fcgiguard_pool_set_int(pool, "workers", 3, error) >= 0 && strcmp(fcgiguard_pool_get(pool, "workers"), "3") == 0);
    CHECK(fcgiguard_pool_get(pool, "nonsense") == NULL);
}

/* Addresses that parse, and those that do not with what their message must name. */
static void addresses(fcgiguard_error *error)
{
    static const char *const good[] = {"unix:/run/app.sock", "/run/app.sock", "127.0.0.1:9000", "localhost:9000", ":9000", "*:9000",
                                       "[::1]:9000", "fd:0", "systemd:app"};
    static const struct { const char *address, *says; } bad[] = {
        {"", ""}, {"host:90x", "character 8"}, {"host:65536", "65536"}, {"host:-1", "character"}, {"host:", ""},
        {"[::1:9000", ""}, {"[::g]:9000", ""}, {"unix:", ""}, {"fd:", ""}, {"fd:x", ""}, {"fd:99999999999", ""}, {"nonsense", ""}};
    char path[400];
    size_t at;

    for (at = 0; at < sizeof good / sizeof *good; at++)
        if (fcgiguard_address_check(good[at], error) != 0) check(0, good[at], __LINE__);
        else passed++;
    for (at = 0; at < sizeof bad / sizeof *bad; at++) {
        int32_t code = fcgiguard_address_check(bad[at].address, error);
        const char *says = fcgiguard_error_message(error);
        if (is(code, "invalid_address") && fcgiguard_error_code(error) == code && filled(says) && strstr(says, bad[at].says)) {
            passed++;
        } else {
            printf("[%s]: code %ld, %s\n", bad[at].address, (long)code, says);
            check(0, "is an invalid address that the message explains", __LINE__);
        }
    }
    /* sun_path holds 107 bytes and a NUL. */
    memset(path, 'x', sizeof path);
    path[0] = '/';
    path[sizeof path - 1] = '\0';
    CHECK(fcgiguard_address_check(path, error) < 0);
    path[108] = '\0';
    CHECK(fcgiguard_address_check(path, error) < 0);
    path[107] = '\0';
    CHECK(fcgiguard_address_check(path, error) == 0);
    /* Text has to be UTF-8. */
    CHECK(fcgiguard_address_check("/run/\xff\xfe.sock", error) < 0);
}

int main(void)
{
    fcgiguard_error *error = fcgiguard_error_new();
    fcgiguard_pool *pool = fcgiguard_pool_new();

    CHECK(error && pool);
    CHECK(fcgiguard_error_code(error) == 0 && strcmp(fcgiguard_error_message(error), "") == 0);
    CHECK(fcgiguard_error_message(NULL) != NULL && filled(fcgiguard_version()));
    codes();
    options(pool, error);
    addresses(error);

    /* A failure overwrites the error, a success leaves it alone. */
    CHECK(fcgiguard_pool_set(pool, "nonsense", "1", error) < 0 && is(fcgiguard_error_code(error), "unknown_option"));
    CHECK(strstr(fcgiguard_error_message(error), "nonsense") != NULL);
    CHECK(fcgiguard_address_check(":9000", error) == 0 && is(fcgiguard_error_code(error), "unknown_option"));
    CHECK(fcgiguard_address_check("?", error) < 0 && is(fcgiguard_error_code(error), "invalid_address"));
    CHECK(fcgiguard_address_check("?", NULL) == fcgiguard_error_code(error));

    fcgiguard_pool_free(pool);
    fcgiguard_error_free(error);
    printf("smoke: %d passed, %d failed\n", passed, failed);
    return failed != 0;
}
