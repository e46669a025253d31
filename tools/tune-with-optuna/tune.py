"""Searches the options of `fishy train` with Optuna: TPE proposes, fishy trains, the last line of `--json` is read.

    pip install optuna
    python tools/tune-with-optuna/tune.py --trials 20 --steps 300 -- model.onnx --loss softmax-cross-entropy \
        --data images.npy labels=labels.npy --held-out 0.1 --optimizer fishy

What follows `--` goes to `fishy train` as it is. Every trial trains in pieces (`--pause-at`, `--resume`, which go on bit
for bit), so that Optuna can end those that are behind at the end of a piece. A study in a database (--storage
sqlite:///search.db) is gone on with.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import optuna


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fishy", default="npx fishy", help="the command; default npx fishy")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--pieces", type=int, default=4, help="times that a trial is judged")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/optuna"))
    parser.add_argument("--storage", help="a database, such as sqlite:///search.db")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("train", nargs=argparse.REMAINDER, help="-- and the arguments of fishy train")
    return parser.parse_args()


def fishy(command: list[str]) -> dict:
    """Runs the command; its result is the last line that it prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    options = arguments()
    train = options.train[1:] if options.train[:1] == ["--"] else options.train
    command = [*shlex.split(options.fishy), "train"]

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        beta2 = 1 - trial.suggest_float("one_minus_beta2", 1e-3, 1e-1, log=True)
        run = options.out / f"trial-{trial.number:04d}"
        trial.set_user_attr("run", str(run))
        given = ["--lr", str(rate), "-O", f"beta2={beta2}", "--steps", str(options.steps), "--out", str(run)]
        for piece in range(1, options.pieces + 1):
            step = options.steps * piece // options.pieces
            pause = ["--pause-at", str(step)] if piece < options.pieces else []
            what = [*train, *given] if piece == 1 else ["--resume", str(run)]
            result = fishy([*command, *what, *pause, "--quiet", "--json"])
            loss = (result.get("heldOut") or result["train"])["loss"]
            trial.report(loss, step)
            if pause and trial.should_prune():
                raise optuna.TrialPruned()
        return loss

    study = optuna.create_study(
        study_name="fishy",
        storage=options.storage,
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=options.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    # A loss that is not finite ends the run with an error: the trial failed, the search goes on.
    study.optimize(objective, n_trials=options.trials, catch=(RuntimeError,))
    print(json.dumps({"value": study.best_value, "parameters": study.best_params, **study.best_trial.user_attrs}))


if __name__ == "__main__":
    sys.exit(main())
