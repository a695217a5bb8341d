"""A program whose trainings are killed, or find the disk full, at a moment that is asked for. See test_faults.py.

It imports minild once, and then takes a line of JSON for each training, which runs in a process forked for it:
    output, resume, steps; kind, a key of KINDS
    seconds  kill it (SIGKILL) that long after it began; or
    call     before that call, from 0, of one of killed.CALLS, which files are written by; or
    torn     in the middle of the writing of that file of weights, from 0; or
    largest  no file may grow larger: the disk is full
Each is answered by a line with its status, negative for a signal. Beside `output`, output.log says what was saved.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import resource
import signal
import sys
import threading
import time
import warnings

import killed

from minild import checkpoints, cli, pretrained
from minild.training import journal, run, stage
from training.tiny_preset import SMALL, TINY

MUON = dataclasses.replace(SMALL, optimizer="muon")
KINDS = {
    "kl": TINY,
    "vq, muon": dataclasses.replace(TINY, regularisation="vq", codebook_size=20, autoencoder=MUON, diffusion=MUON),
    "adversarial": dataclasses.replace(TINY, adversarial_weight=0.3, adversarial_start=0.3, discriminator_width=4),
    "flow": dataclasses.replace(TINY, objective="flow"),
}


def logging(output):
    """Let whatever is saved be told in output.log, where no kill loses a line."""
    log = os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write, save_pipeline = checkpoints.write, run.Run._save_pipeline

    def write_and_tell(output, state, *rest):
        write(output, state, *rest)
        os.write(log, f"saved {state['stage']} {state['taken'][state['stage']]}\n".encode())

    def save_and_tell(self):
        weights = digest(self.pipeline)
        os.write(log, f"writes {weights}\n".encode())
        save_pipeline(self)
        os.write(log, f"wrote {weights}\n".encode())

    checkpoints.write, run.Run._save_pipeline = write_and_tell, save_and_tell


def digest(pipeline):
    """Of all that stage two trains, in the pipeline as it is."""
    sha = hashlib.sha256()
    for model in (pipeline.unet, pipeline.text_encoder):
        for _, array in sorted(model.state_dict().items()):
            sha.update(array.tobytes())
    return sha.hexdigest()


def kill_after(seconds):
    def kill():
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()


def tear(number):
    """Kill the process when it has written half of that file of weights."""
    save_file, left = pretrained.save_file, [number]

    def save_half(state, path, metadata):
        save_file(state, path, metadata)
        if not left[0]:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    pretrained.save_file = save_half


def train(asked):
    """-> the status of `minild train`, whose stderr goes to output.err."""
    output = asked["output"]
    stage.SAVE_EVERY, stage.SHEETS, run.SAMPLES, journal.EVERY = -1.0, 1, 1, 2
    run.draw_sheet = lambda *arguments: None
    run.preset_for = lambda dataset: KINDS[asked["kind"]]
    command = ["train", "shapes", "--output", output, "--steps", str(asked["steps"]), "--seed", "3"]
    with open(f"{output}.err", "w") as errors, contextlib.redirect_stderr(errors):
        logging(output)
        if "largest" in asked:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"], resource.RLIM_INFINITY))
        if "torn" in asked:
            tear(asked["torn"])
        if "call" in asked:
            killed.kill_before(asked["call"])
        if "seconds" in asked:
            kill_after(asked["seconds"])
        return cli.main(command + ["--resume"] * asked["resume"])


def main():
    for line in sys.stdin:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            status = 99  # of a traceback
            try:
                os.dup2(2, 1)  # stdout is for the answers
                status = train(json.loads(line))
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
