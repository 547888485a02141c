#!/usr/bin/python3
"""Fits the weights of common/complexity. See README.md.

    tools/route-fit/fit.py --texts prompts.jsonl [--build build]

Writes common/complexity_weights.inc, to the same bytes each time; prints what was chosen and, for each weight, its prior.
"""
import argparse
import pathlib

import numpy

import model
from data import SOURCES, Program, Prompts

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "common" / "complexity_weights.inc"
SEED = 0
SPREAD = 1.5


def calibrated(weights, program, path):
    """Bias and weights whose sums have mean 0 and spread SPREAD over the file's sources, each counted once: 0.5 is an average prompt, and most
    lie between 0.1 and 0.9. A score is an order, so its scale is free; the fit's own would leave all of them near the middle."""
    everything = Prompts(path)
    sums = program.features(everything.texts)[0] @ weights
    names = sorted(set(everything.source))
    mean = numpy.mean([sums[everything.source == name].mean() for name in names])
    square = numpy.mean([((sums[everything.source == name] - mean) ** 2).mean() for name in names])
    scale = SPREAD / numpy.sqrt(square)
    return -mean * scale, weights * scale, scale


def write_weights(names, weights, bias):
    with open(WEIGHTS, "w", encoding="ascii") as file:
        file.write("/* Made by tools/route-fit. */\n")
        file.write(f".bias = {bias:.4f},\n.weights = {{\n")
        for name, value in zip(names, weights):
            file.write(f"    [COMPLEXITY_{name.upper()}] = {value + 0:.4f},\n")
        file.write("},\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, metavar="prompts.jsonl")
    parser.add_argument("--build", default=str(ROOT / "build"))
    arguments = parser.parse_args()
    prompts, program = Prompts(arguments.texts, SOURCES), Program(arguments.build)
    features, _ = program.features(prompts.texts)
    everyone = numpy.ones(len(prompts.rows), bool)
    settings = model.choose(program.names, features, prompts, everyone, prompts.folds(SEED))
    fitted = model.fit(program.names, features, prompts, everyone, settings)
    bias, weights, scale = calibrated(fitted, program, arguments.texts)
    write_weights(program.names, weights, bias)
    print(f"{settings}; scale {scale:.2f}, bias {bias:.3f}")
    for name, value, shipped in zip(program.names, fitted, weights):
        print(f"{name:14} {value:7.3f}   prior {model.PRIOR.get(name, 0.0):5.2f}   scaled {shipped:7.3f}")


if __name__ == "__main__":
    main()
