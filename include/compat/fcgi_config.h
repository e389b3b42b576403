/* What programs that include libfcgi's fcgi_config.h ask for; all of it holds on every system that this library runs on. */
#ifndef FCGIGUARD_FCGI_CONFIG_H
#define FCGIGUARD_FCGI_CONFIG_H

#define HAVE_FPOS 1
#define HAVE_LIMITS_H 1
#define HAVE_STDLIB_H 1
#define HAVE_STRING_H 1
#define HAVE_SYS_SOCKET_H 1
#define HAVE_SYS_TIME_H 1
#define HAVE_UNISTD_H 1

#endif
