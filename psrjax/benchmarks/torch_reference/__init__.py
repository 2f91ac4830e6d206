"""The five systems in PyTorch, for `psrjax bench --against=torch` only."""
