"""`minild doctor`: what ails a training, if anything does."""

import json
from dataclasses import asdict

from minild.cli import arguments as options
from minild.cli.terminal import answer, without_warnings

STDOUT = "-"  # in place of a file's name


def add(commands):
    summary = "tell whether a training goes well, and what to try if it does not"
    details = "It may have ended, been stopped or still run. Prints what is seen, the most important first."
    command = options.add_command(commands, "doctor", run, summary, details)
    command.add_argument("training", type=options.path, metavar="DIR", help="the folder that `minild train` writes")
    to_json = "print the findings as JSON; with a FILE, write them to it, too"
    command.add_argument("--json", type=options.path, nargs="?", const=STDOUT, metavar="FILE", help=to_json)


def run(arguments):
    from minild.pipelines import output
    from minild.training import doctor

    if arguments.json and str(arguments.json) != STDOUT:
        output.require_writable(arguments.json)
    with without_warnings():
        record = doctor.read_record(arguments.training)
        findings = doctor.diagnose(record, progress=True)
    told = {"training": str(arguments.training), "how_far": doctor.how_far(record)}
    text = json.dumps(told | {"findings": [asdict(finding) for finding in findings]}, indent=2)
    if str(arguments.json) == STDOUT:
        answer(text)
        return
    if arguments.json:
        with output.whole_file(arguments.json) as file:
            file.write(text.encode() + b"\n")
    lines = [f"{arguments.training}: {record.state['dataset']}, {doctor.how_far(record)}"]
    for finding in findings:
        lines += ["", finding.name, f"  seen  {finding.seen}", f"  try   {finding.advice}"]
    answer(*lines)
