"""psrjax: five published systems that synthesize video of people, in JAX and Flax."""

from psrjax import _compiler

_compiler.guard()

__version__ = "0.1.0"
