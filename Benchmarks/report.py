"""The table of Plexus and its peers."""

from machine import machine_text

HEADS = ["server", "i/o", "IOPS (min..max)", "MB/s", "p50 us", "p99 us", "CPU us/req",
         "plexus/it: IOPS (min..max)", "p50", "CPU"]


def headline(machine: dict, result: dict) -> str:
    return (f"{machine_text(machine)}, {result['fileSystem']}, load {machine['loadAverageAtStart'][0]:.1f} at start; "
            f"{conditions(result)}")


def conditions(result: dict) -> str:
    return (f"{result['sizeBytes'] >> 20} MiB, page cache {result['pageCache']}, "
            f"{result['repetitions']} x {result['seconds']} s, medians")


def print_table(rows: list[dict]):
    lines = [(row["workload"], line(row)) for row in rows]
    widths = [max(len(HEADS[column]), *(len(cells[column]) for _, cells in lines)) for column in range(len(HEADS))]

    def text(cells: list[str]) -> str:
        return "  ".join([*(cell.ljust(width) for cell, width in zip(cells[:2], widths[:2])),
                          *(cell.rjust(width) for cell, width in zip(cells[2:], widths[2:]))]).rstrip()

    workload = None
    for name, cells in lines:
        if name != workload:
            print(f"\n{name}\n  {text(HEADS)}")
            workload = name
        print(f"  {text(cells)}")
    print("\nplexus/it is taken within each repetition: IOPS above 1, p50 and CPU below 1 are in Plexus' favour.",
          flush=True)


def line(row: dict) -> list[str]:
    measures, ratio = row["measures"], row["plexusDividedByThis"]
    if not measures:
        return [row["server"], row["io"], "failed", *[""] * 7]

    def median(table: dict, name: str, digits: int) -> str:
        return f"{table[name]['median']:.{digits}f}" if name in table else ""

    def spread(table: dict, name: str, digits: int) -> str:
        if name not in table:
            return ""
        return "{median:.{d}f} ({low:.{d}f}..{high:.{d}f})".format(d=digits, **table[name])

    return [row["server"], row["io"], spread(measures, "iops", 0), median(measures, "megabytes_per_second", 0),
            median(measures, "p50_microseconds", 0), median(measures, "p99_microseconds", 0),
            median(measures, "cpu_microseconds_per_request", 1), spread(ratio, "iops", 2),
            median(ratio, "p50_microseconds", 2), median(ratio, "cpu_microseconds_per_request", 2)]
