"""Process set-up for the entry points, worker processes, and facts about the machine."""
