"""`python -m model.bench`: linewatch alone, on a machine that has torch and nothing else of ours."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from model.bench.engine import PRODUCTS, EngineOptions
from model.bench.peer import AnomalibPeer
from model.bench.runs import EngineRun, Report, TrainRun, run_engine, run_train
from model.bench.show import show
from model.fitting.options import FitOptions
from model.teachers import TEACHERS


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the report to --json or to stdout; or show reports."""
    given = _parser().parse_args(arguments)
    if "files" in given:
        for file in given.files:
            sys.stdout.write("\n".join(show(file)) + "\n")
        return
    report: Report = {"command": " ".join(["python -m model.bench", *(arguments or sys.argv[1:])])}
    report |= given.measure(given)
    text = json.dumps(report, indent=2) + "\n"
    if given.json:
        given.json.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


def _engine(given: argparse.Namespace) -> Report:
    options = EngineOptions(
        given.threads, given.repeats, given.seconds, given.device, tuple(given.replicas or ()), given.products
    )
    run = EngineRun(given.backbone, given.size, tuple(given.batch or (1, 16)), None, options, given.fit_steps)
    if given.peer is None:
        return run_engine(run, None, _say)
    with AnomalibPeer(given.peer, options.torch_device) as peer:
        return run_engine(run, peer, _say)


def _train(given: argparse.Namespace) -> Report:
    fit = FitOptions(
        backbone=given.backbone,
        size=given.size,
        steps=given.steps,
        batch=given.batch,
        method=given.method,
        corruptions=given.corruptions,
    )
    return run_train(TrainRun(fit, given.images, None, given.threads, given.device), None, _say)


def _say(title: str, done: int, of: int) -> None:
    if done == of:
        sys.stderr.write(f"{title}: {of}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model.bench", description="Measure linewatch on this machine.")
    commands = parser.add_subparsers(required=True)
    engine = commands.add_parser("engine", help="rates of scoring, from frames and from bytes")
    engine.add_argument("--batch", type=int, action="append", help="images at once; may be repeated (default: 1, 16)")
    engine.add_argument("--repeats", type=int, default=7, help="of each mode, interleaved (default: %(default)s)")
    engine.add_argument("--seconds", type=float, default=1.0, help="of one repeat (default: %(default)s)")
    engine.add_argument(
        "--replicas", type=int, action="append", help="so many processes side by side; may be repeated (default: none)"
    )
    engine.add_argument("--products", type=int, default=PRODUCTS, help="of a stream of many (default: %(default)s)")
    engine.add_argument("--fit-steps", type=int, help="of the model that scores (default: enough for some sense)")
    engine.add_argument(
        "--peer", type=Path, metavar="PYTHON", help="measure anomalib beside it: an interpreter that has it"
    )
    engine.set_defaults(measure=_engine)
    train = commands.add_parser("train", help="seconds of a fit and of its steps")
    train.add_argument("--batch", type=int, default=16, help="images a step (default: %(default)s)")
    train.add_argument("--steps", type=int, default=40, help="training steps (default: %(default)s)")
    train.add_argument("--images", type=int, default=128, help="images drawn (default: %(default)s)")
    train.add_argument("--method", default="fusion", help="fusion, or plain (default: %(default)s)")
    train.add_argument("--corruptions", type=int, default=0, help="spoiled copies of an image (default: %(default)s)")
    train.set_defaults(measure=_train)
    shown = commands.add_parser("show", help="reports, in a few lines each")
    shown.add_argument("files", type=Path, nargs="+")
    for command in (engine, train):
        command.add_argument("--backbone", default="efficientnet_lite0", choices=sorted(TEACHERS))
        command.add_argument("--size", type=int, default=256, help="side in pixels (default: %(default)s)")
        command.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU (default: all cores)")
        command.add_argument(
            "--device",
            default="cuda" if torch.cuda.is_available() else "cpu",
            help="cpu, cuda, or rehearsal: a CPU that goes a GPU's way (default: %(default)s)",
        )
        command.add_argument("--json", type=Path, help="write the report here instead of to stdout")
    return parser


if __name__ == "__main__":
    main()
