"""Results of other tools as external records: shown apart, never averaged with ours."""
