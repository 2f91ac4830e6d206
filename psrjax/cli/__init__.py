"""The commands, a file for each: flags and no logic."""
