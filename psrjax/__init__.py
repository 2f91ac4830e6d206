"""psrjax: five published systems that synthesize video of people, in JAX and Flax."""

__version__ = "0.1.0"
