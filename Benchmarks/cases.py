"""Cases of Plexus beside a first one: what growth.py and bitmap.py make of their runs."""

from collections.abc import Callable

from runs import Run, Spread, as_plain, ratios, spreads


def summarize_cases(runs: list[Run], workloads: list[str], cases: list[str]) -> list[dict]:
    """Each case beside the first one."""
    rows = []
    for workload in workloads:
        good = {case: {run.repetition: run for run in runs
                       if (run.workload, run.server, run.error) == (workload, case, None)} for case in cases}
        for case in cases:
            rows.append({"workload": workload, "case": case, "runs": len(good[case]),
                         "measures": as_plain(spreads(list(good[case].values()))),
                         "dividedByFirst": as_plain(ratios(good[case], good[cases[0]]))})
    return rows


def print_cases(result: dict):
    """Also of the bitmap's cost: both put cases beside a first one."""
    workload = None
    for row in result["summary"]:
        if row["workload"] != workload:
            workload = row["workload"]
            print(f"\n{workload:44}  {'IOPS (min..max)':>24}  CPU us/req  {'IOPS / first (min..max)':>24}  CPU / first")
        print(f"  {row['case']:42}  " + cells(row["measures"], row["dividedByFirst"]))


def cells(measures: dict, divided: dict) -> str:
    def text(table: dict, name: str, digits: int, plain: Callable[[Spread, int], str] = Spread.text) -> str:
        return plain(Spread(**table[name]), digits) if name in table else "failed"

    def median(spread: Spread, digits: int) -> str:
        return f"{spread.median:.{digits}f}"

    return "  ".join([text(measures, "iops", 0).rjust(24),
                      text(measures, "cpu_microseconds_per_request", 1, median).rjust(10),
                      text(divided, "iops", 2).rjust(24),
                      text(divided, "cpu_microseconds_per_request", 2, median).rjust(11)])
