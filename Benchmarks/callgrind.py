"""Reads what valgrind --tool=callgrind writes: cost per function, and who calls whom how often.

Source: "Callgrind Format Specification", valgrind manual.
"""

import collections
import re
import subprocess

# "fn=(12) name" names a function, "fn=(12)" names it again.
NAME = re.compile(r"\((\d+)\)(?: (.*))?$")


class Profile:
    """Instructions (`self_cost`, `inclusive`) by function; `calls` by caller and callee."""

    def __init__(self):
        self.self_cost = collections.Counter()
        self.inclusive = collections.Counter()
        self.calls = collections.Counter()

    @property
    def total(self):
        return sum(self.self_cost.values())

    def called(self, *names):
        """How often functions of these names were called, not counting their calls of each other."""
        return sum(
            count for (caller, callee), count in self.calls.items() if callee in names and caller not in names)

    def callers(self, *names):
        """The same by caller."""
        result = collections.Counter()
        for (caller, callee), count in self.calls.items():
            if callee in names and caller not in names:
                result[caller] += count
        return result

    def minus(self, other):
        """What this run did beyond the other."""
        result = Profile()
        for field in ("self_cost", "inclusive", "calls"):
            mine, theirs = getattr(self, field), getattr(other, field)
            difference = collections.Counter({key: count - theirs[key] for key, count in mine.items()})
            difference.update({key: -count for key, count in theirs.items() if key not in mine})
            setattr(result, field, collections.Counter({key: count for key, count in difference.items() if count}))
        return result


def read(path):
    """The functions of one output file, all under their names as the linker knows them."""
    profile = Profile()
    names = {}
    function = callee = None
    cost_of_call = False

    def name(text):
        match = NAME.match(text)
        if not match:
            return text
        if match[2] is not None:
            # Recursion levels and the file that a cycle lies in are no part of the name.
            names[match[1]] = re.sub(r"'\d+$", "", match[2])
        return names[match[1]]

    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("fn="):
                function = name(line[3:])
            elif line.startswith("cfn="):
                callee = name(line[4:])
            elif line.startswith("calls="):
                profile.calls[function, callee] += int(line[6:].split()[0])
                cost_of_call = True
            elif line[:1] in "0123456789+-*" and function and line:
                cost = int(line.split()[1]) if " " in line else 0
                if cost_of_call:
                    if callee != function:
                        profile.inclusive[function] += cost
                else:
                    profile.self_cost[function] += cost
                    profile.inclusive[function] += cost
                cost_of_call = False
    return profile


def demangle(names):
    """Swift's names as they are written in the source, shortened; others stay."""
    names = list(names)
    if not names:
        return {}
    output = subprocess.run(
        ["swift", "demangle", "--simplified"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True)
    return dict(zip(names, output.stdout.splitlines()))
