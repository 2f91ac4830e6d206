"""Process set-up and facts about the machine; called by the entry points."""
