"""Statistics over runs: intervals, tests of differences, power, corrections. Nothing here draws random numbers."""
