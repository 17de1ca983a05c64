"""Records -> tables: definitions are data, cells have intervals and tests, four formats come from one frame."""
