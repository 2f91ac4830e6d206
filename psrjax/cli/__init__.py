"""One file for each psrjax command; flags only, no logic."""
