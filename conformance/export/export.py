"""Writes OUT/KIND/NAME/CASE.safetensors for every cases file of one environment."""

import argparse
import ast
import importlib
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def constants(path):
    """ENV and NAMES (default: its stem) of a cases file without importing it: its reference may not be installed here."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in ("ENV", "NAMES"):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found["ENV"], found.get("NAMES", (path.stem,))


def files(only):
    for path in sorted((HERE / "cases").glob("*.py")):
        env, names = constants(path)
        if not only or only in names:
            yield path, env, names


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", choices=["main", "tf", "former"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", metavar="NAME", help="one name, as in the golden's folder")
    parser.add_argument("--list-envs", action="store_true", help="only print which environments the cases need")
    args = parser.parse_args()
    if args.list_envs:
        for env in sorted({env for _, env, _ in files(args.only)}):
            print(env)
        return
    if not (args.env and args.out):
        parser.error("--env and --out say what to run and where to write")

    sys.path.insert(0, str(HERE))
    sys.path.append(str(HERE / "cases"))  # last: a cases file may be named like its reference
    sys.dont_write_bytecode = True
    importlib.import_module("golden")  # before any reference: it says how torch is to run
    for path, env, names in files(args.only):
        if env != args.env:
            continue
        spec = importlib.util.spec_from_file_location(f"cases_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        written, size = set(), 0
        for case in module.cases(args.seed):
            if args.only and case.name != args.only:
                continue
            if case.name not in names:
                sys.exit(f"{path.name}: a case of {case.name}, which NAMES doesn't list")
            target = case.path(args.out)
            if target in written:
                sys.exit(f"{path.name}: {case.name}/{case.case} twice")
            written.add(target)
            case.write(args.out)
            size += target.stat().st_size
        print(f"{path.stem}: {len(written)} cases, {size / 1024:.0f} KiB", flush=True)


if __name__ == "__main__":
    main()
