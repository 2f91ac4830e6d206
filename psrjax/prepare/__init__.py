"""Turns videos, recordings and published datasets into stored datasets."""

import sys

import psrjax

# `psrjax.prepare` is the public function too, which this room would hide once it is imported.
sys.modules[__name__].__class__ = psrjax.CallableRoom
