"""The command line: `python -m bitstep.conformance verify --optimizer MODULE:NAME --as REGISTRY_NAME`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from . import cases, fuzz, verify


def _load(text: str) -> object:
    module, _, name = text.partition(":")
    if not name:
        raise SystemExit(f"--optimizer {text}: must be MODULE:NAME")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as e:
        raise SystemExit(f"--optimizer {text}: {e}") from e
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bitstep.conformance", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="check an optimizer against golden vectors of the real reference")
    search = commands.add_parser("fuzz", help="look for inputs at which an optimizer is wrong")
    for command in (check, search):
        command.add_argument("--optimizer", required=True, metavar="MODULE:NAME", help="a torch.optim.Optimizer class or a function")
        command.add_argument("--as", required=True, dest="name", metavar="NAME", help="whose rule it is: adamw_torch, …")
        command.add_argument("--hidden-state", action="store_true", help="compare values only: the state has other keys")
    search.add_argument("--cases", type=int, metavar="N", help="how many runs to draw")
    search.add_argument("--seconds", type=float, help="how long to draw; without it and --cases, 60")
    search.add_argument("--seed", type=int, default=1, help="the seed of the runs")
    search.add_argument("--profile", choices=("all", "ordinary", "edges"), default="all", help="which inputs are drawn")
    search.add_argument("--out", default="fuzz-findings", metavar="DIR", help="where findings are written, as golden cases")
    search.add_argument("--go-on", action="store_true", help="do not stop at the first finding")
    check.add_argument("--json", metavar="FILE", help="write one JSON object a line")
    check.add_argument("--report", metavar="FILE.html", help="write a page with plots of error over steps")
    check.add_argument("--fresh", type=int, metavar="SEED", help="other inputs; the core is the oracle")
    check.add_argument("--strict", action="store_true", help="what is unsupported fails, too")
    shown = commands.add_parser("list", help="list the cases")
    for command in (check, shown):
        command.add_argument("--only", metavar="GLOB", help="a part of the cases: optimizer/adamw_torch/*_f32")
        command.add_argument("--golden", action="append", default=[], metavar="DIR", help="another suite than the package's")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            print("\n".join(cases(options.only, options.golden)))
            return 0
        if options.command == "fuzz":
            ok, text = fuzz(
                _load(options.optimizer),
                options.name,
                options.out,
                options.cases,
                options.seconds,
                options.seed,
                options.profile,
                options.hidden_state,
                options.go_on,
            )
            print(text)
            return 0 if ok else 1
        ok, text = verify(
            _load(options.optimizer),
            options.name,
            options.only,
            options.golden,
            options.hidden_state,
            options.json,
            options.report,
            options.fresh,
            options.strict,
        )
    except (ValueError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(text)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
