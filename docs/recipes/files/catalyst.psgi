# /srv/shop/shop.psgi: the application is loaded when this is read, so that a worker that cannot serve is not ready.
use strict;
use warnings;
use lib '/srv/shop/lib';
use Shop;
Shop->can('psgi_app') or die "Shop is loaded and is no application\n";
Shop->psgi_app;
