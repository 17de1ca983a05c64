"""Claims of the papers (results/claims.yaml) and what the records say about each."""
