"""Records -> one folder of static pages: no server, no network, no script."""
