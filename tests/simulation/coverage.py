"""Sums up gcov's branches of broker/core/*.c. Called by coverage.sh.

Left out are branches that only a mistake in the code could take: asserts, what leads straight to abort() (a broken contract of
effects.h), and of a switch over an enum the value that no enumerator has."""
import json
import pathlib
import subprocess
import sys

build = pathlib.Path(sys.argv[1])
root = pathlib.Path(__file__).resolve().parents[2]


def count_files():
    """What gcov says of each source file: {line: [times each branch was taken]}."""
    files = {}
    for counts in sorted((build / "broker/core/libbroker-core.a.p").glob("*.gcda")):
        text = subprocess.run(["gcov", "--branch-probabilities", "--json-format", "--stdout", counts.name],
                              cwd=counts.parent, capture_output=True, text=True, check=True).stdout
        for file in json.loads(text)["files"]:
            if "broker/core/" not in file["file"] or not file["file"].endswith(".c"):
                continue
            lines = files.setdefault(pathlib.Path(file["file"]).name, {})
            for line in file["lines"]:
                lines.setdefault(line["line_number"], []).extend(b["count"] for b in line["branches"])
    return files


def excluded_lines(source):
    """Numbers of lines of asserts, to their end, and of conditions whose block is abort()."""
    lines, depth = set(), 0
    for number, text in enumerate(source, 1):
        begins = depth == 0 and text.lstrip().startswith("assert(")
        if begins or depth > 0:
            lines.add(number)
            depth += text.count("(") - text.count(")")
        if text.strip().startswith("abort();"):
            lines.add(number - 1)
    return lines


def main():
    taken_in_all = all_in_all = 0
    untaken = []
    for name, lines in sorted(count_files().items()):
        source = (root / "broker/core" / name).read_text().splitlines()
        excluded = excluded_lines(source)
        taken = all_of_file = 0
        for number, branches in sorted(lines.items()):
            if number in excluded:
                continue
            if source[number - 1].lstrip().startswith("switch (") and 0 in branches:
                branches.remove(0)
            all_of_file += len(branches)
            taken += sum(count > 0 for count in branches)
            if 0 in branches:
                untaken.append(f"broker/core/{name}:{number}: {branches.count(0)} of {len(branches)}: "
                               f"{source[number - 1].strip()}")
        taken_in_all += taken
        all_in_all += all_of_file
        if all_of_file > 0:
            print(f"{name:16} {taken:5} of {all_of_file:5} branches, {100 * taken / all_of_file:5.1f} %")
    (build / "untaken.txt").write_text("\n".join(untaken) + "\n")
    print(f"{'all':16} {taken_in_all:5} of {all_in_all:5} branches, {100 * taken_in_all / all_in_all:5.1f} %")


main()
