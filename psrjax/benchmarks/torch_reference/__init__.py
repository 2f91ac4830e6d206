"""The five systems in PyTorch, which `psrjax bench --against=torch` compares with psrjax."""
