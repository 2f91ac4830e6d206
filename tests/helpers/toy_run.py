"""Trains the toy in a process of its own, which can be killed: python toy_run.py WORKDIR …

With JAX_COORDINATOR_ADDRESS and its companions it is one process of several.
"""

import argparse
import os
import signal

import toy
from absl import flags

from psrjax import config as config_lib
from psrjax.runtime import cluster
from psrjax.training import stages


def die(*_):
    """Ends the process as a machine without power does."""
    os.kill(os.getpid(), signal.SIGKILL)


def main():
    """Trains with the overrides of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--variant", default="")
    parser.add_argument("--set", action="append", default=[], help="dotted.key=value")
    parser.add_argument("--die-at-step", type=int, default=-1)
    parser.add_argument("--die-while-saving", default="", help="the last part of a path")
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()
    toy.install()
    cluster.join()
    if arguments.die_at_step >= 0:
        toy.BEFORE_BATCH = lambda step: die() if step == arguments.die_at_step else None
    if arguments.die_while_saving:
        rename = os.rename

        def rename_or_die(source, target, **options):
            if os.fspath(target).endswith(arguments.die_while_saving):
                die()
            rename(source, target, **options)

        os.rename = os.replace = rename_or_die
    pairs = (item.split("=") for item in arguments.set)
    overrides = {key: int(value) for key, value in pairs}
    config = config_lib.update(toy.get_config(arguments.variant), overrides)
    with cluster.ending_together():
        stages.train(config, arguments.workdir)


if __name__ == "__main__":
    main()
