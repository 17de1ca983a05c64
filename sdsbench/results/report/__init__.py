"""Records -> a folder of static HTML pages that need no server, network or script."""
