"""The methods: how each paper trains and synthesizes, one file for each."""
