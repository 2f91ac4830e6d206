"""The public interface: what `import psrjax` offers, and what the commands stand on."""
