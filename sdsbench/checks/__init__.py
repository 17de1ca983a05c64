"""The contract that every method and task has to hold, this project's own and those of plugins alike."""
