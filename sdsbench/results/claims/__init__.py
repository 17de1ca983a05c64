"""The papers' claims (results/claims.yaml) and the verdict of the records on each."""
