"""`minild doctor`: what ails a training, if anything does."""

from minild.cli import arguments as options
from minild.cli.terminal import answer, without_warnings


def add(commands):
    summary = "tell whether a training goes well, and what to try if it does not"
    details = "It may have ended, been stopped or still run. Prints what is seen, the most important first."
    command = options.add_command(commands, "doctor", run, summary, details)
    what = "the folder that `minild train` writes, or a pipeline that it wrote"
    command.add_argument("training", type=options.path, metavar="DIR", help=what)


def run(arguments):
    from minild.training import doctor

    with without_warnings():
        record = doctor.read_training(arguments.training)
        findings = doctor.diagnose(record, progress=True)
    lines = [f"{arguments.training}: {record.state['dataset']}, {doctor.how_far(record)}"]
    for finding in findings:
        lines += ["", finding.name, f"  seen  {finding.seen}", f"  try   {finding.advice}"]
    answer(*lines)
