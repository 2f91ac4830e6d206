"""Finds the packages; configs/, which stands beside the package, ships inside it."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["psrjax", "psrjax.*"]), "psrjax.configs"])
