/* libfcgi's name for it, so that a program needs no change. */
#include <fcgiguard_stdio.h>
