"""The command line. A command parses, calls one function, prints; heavy imports happen inside its body."""

import os

import click

from alexvgg import __version__
from alexvgg.cli.cluster import cluster
from alexvgg.cli.commands import Commands
from alexvgg.cli.compare import compare
from alexvgg.cli.completion import completion
from alexvgg.cli.config import config
from alexvgg.cli.data import data
from alexvgg.cli.doctor import doctor
from alexvgg.cli.evaluate import evaluate
from alexvgg.cli.jobs import logs, resume, retry, stop
from alexvgg.cli.lineage import lineage
from alexvgg.cli.mlflow import mlflow
from alexvgg.cli.models import models
from alexvgg.cli.plan import plan
from alexvgg.cli.predict import predict
from alexvgg.cli.recipe import recipe
from alexvgg.cli.report import report
from alexvgg.cli.reproduce import reproduce
from alexvgg.cli.status import list_campaigns, status
from alexvgg.cli.submit import submit
from alexvgg.cli.table import table
from alexvgg.cli.train import train
from alexvgg.cli.weights import export_run, import_weights
from alexvgg.exits import exit_codes_text

# OpenMP's threads wait for work by spinning, and so keep the decoding threads from the same cores: with both cores of a
# laptop busy, a small net trained ten times as fast without. It is read when torch is loaded, which is later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exit_codes_text(),
)
@click.version_option(__version__, prog_name="alexvgg")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Reproduce AlexNet and VGG: distributed training on Ray, tables filled beside the paper's.

    \b
    Start here:
      alexvgg submit --model vgg_e --nodes 4     train VGG E (and the A it starts from) on a local cluster
      alexvgg reproduce table4 --nodes 4         every net of the scale-jitter table
      alexvgg table table4                       our results beside the paper's
      alexvgg doctor                             what works here, and what to do about the rest
    """
    if os.environ.get("NO_COLOR"):  # click doesn't look at it (https://no-color.org)
        ctx.color = False


for command in (
    submit, reproduce, plan, status, list_campaigns, logs, stop, resume, retry, evaluate, table, report, compare,
    lineage, mlflow, predict, export_run, import_weights, cluster, train, data, models, recipe, doctor, config,
    completion,
):  # fmt: skip
    main.add_command(command)
