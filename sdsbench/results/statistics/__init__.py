"""Statistics over runs: intervals, tests of differences, power, multiple-testing correction; no random numbers."""
