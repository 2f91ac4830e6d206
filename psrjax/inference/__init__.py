"""Decodes, starts and synthesizes: motion transfer and novel views."""
