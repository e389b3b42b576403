# The application of FCGI::Guard::Manual: any PSGI application will do.
use strict;
use warnings;

sub {
    my ($env) = @_;
    return [200, ['Content-Type' => 'text/plain'], ["Hello from $env->{PATH_INFO}, process $$\n"]];
};
