"""Records -> tables: definitions as data, cells with intervals and tests, four formats from one frame."""
