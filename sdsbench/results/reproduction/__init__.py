"""Runs of a bundle trained again here, and what each of them says of the one in the bundle."""
