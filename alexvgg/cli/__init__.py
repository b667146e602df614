"""The command line. A command parses, calls one function, prints; heavy imports happen inside its body."""

import os
import sys
from typing import Any

import click

from alexvgg import __version__
from alexvgg.cli.cluster import cluster
from alexvgg.cli.data import data
from alexvgg.cli.evaluate import evaluate
from alexvgg.cli.jobs import logs, status, stop
from alexvgg.cli.models import models
from alexvgg.cli.plan import plan
from alexvgg.cli.recipe import recipe
from alexvgg.cli.submit import submit
from alexvgg.cli.table import table
from alexvgg.cli.train import train
from alexvgg.errors import InputError

# OpenMP's threads wait for work by spinning, and so keep the decoding threads from the same cores: with both cores of a
# laptop busy, a small net trained ten times as fast without. It is read when torch is loaded, which is later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Commands(click.Group):
    """A group whose commands answer a request that can't be carried out with one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"alexvgg: {error}", err=True)
            sys.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="alexvgg")
def main() -> None:
    """Reproduce AlexNet and VGG: distributed training on Ray, tables filled beside the paper's.

    \b
    Start here:
      alexvgg submit --model vgg_e --nodes 4     train VGG E (and the A it starts from) on a local cluster
      alexvgg table table4                       our scale-jitter results beside the paper's
    """


for command in (submit, status, logs, stop, evaluate, table, cluster, train, data, models, recipe, plan):
    main.add_command(command)
