"""How each paper trains and synthesizes: one file a paper."""
