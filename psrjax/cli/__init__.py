"""Floor 5: one file for each psrjax command; flags only, no logic."""
