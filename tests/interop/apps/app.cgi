#!/bin/sh
# Plain CGI, for fcgiwrap.
printf 'Content-Type: text/plain\r\nX-Worker: %d\r\n\r\npid=%d app=cgi uri=%s\n' $$ $$ "${REQUEST_URI-}"
