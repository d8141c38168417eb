#!/usr/bin/python3
"""Writes manual pages, from what the command line parser knows: plexus --experimental-dump-help | manual.py DIR

One page for `plexus` and one for each verb, in mdoc(7). What parser and pages tell is the same by construction.
Environment: SOURCE_DATE_EPOCH (the date of the pages), VERSION.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

DATE = time.strftime("%B %-d, %Y", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0"))))
SYSTEM = f"Plexus {os.environ.get('VERSION', '')}".strip()

FILES = (
    ("/etc/plexus/plexus.toml", "The disks and settings of the server that is run as a service."),
    ("/run/plexus/nbd.sock", "Where it takes NBD clients."),
    ("/run/plexus/control.sock", "Where the verbs ask it."),
    ("/var/lib/plexus", "A place for disks that are files."),
    ("/dev/plexus/NAME", "A mirror that is attached."),
)
ENVIRONMENT = (
    ("XDG_RUNTIME_DIR", "If it is set, the sockets of a server that a user starts lie in its directory plexus."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS", "As systemd sets them, see sd_notify(3) and sd_listen_fds(3)."),
)
SERVICE = (
    "The service plexus.service serves the disks of /etc/plexus/plexus.toml. It is not enabled by the installation: make a "
    "mirror, name its disks there, then enable it. The service plexus@NAME.service attaches the mirror NAME as "
    "/dev/plexus/NAME, and a line of fstab(5) with the options _netdev and x-systemd.requires=plexus@NAME.service mounts "
    "what lies on it, after it is there, and unmounts it before it goes.")


def text(words: str) -> str:
    """One paragraph of roff, a sentence on each line, with nothing that roff takes for a request or an escape."""
    words = re.sub(r"\s+", " ", words).strip().replace("\\", r"\e")
    lines = re.sub(r"(?<=[A-Za-z0-9)][.:;]) (?=[A-Z-])", "\n", words).split("\n")
    return "\n".join(guarded(line) for line in lines)


def guarded(line: str) -> str:
    line = line.replace("--", r"\-\-").replace(" -", r" \-")
    return r"\&" + line if line[:1] in ".'" else line


def macro_argument(word: str) -> str:
    """One argument of a macro: quoted where mdoc would split it, or take it for punctuation or another macro."""
    word = word.replace("\\", r"\e").replace('"', r"\(dq").replace("-", r"\-")
    return f'"{word}"' if " " in word else r"\&" + word


def paragraphs(discussion: str) -> list[str]:
    return [text(paragraph) for paragraph in re.split(r"\n\s*\n", discussion) if paragraph.strip()]


def option_names(argument: dict) -> list[str]:
    return [("-" if name["kind"] == "short" else "--") + name["name"] for name in argument["names"]]


def flag(name: str) -> str:
    # Fl adds the first dash itself.
    return "Fl " + macro_argument(name.removeprefix("-"))


def is_shown(argument: dict) -> bool:
    return argument["shouldDisplay"] and argument.get("valueName") not in ("help", "version")


def pairs(arguments: list[dict]) -> list[list[dict]]:
    """An inversion, such as --verify and --no-verify, is two arguments with the same abstract: one entry."""
    entries: list[list[dict]] = []
    for argument in arguments:
        same = entries and argument["kind"] == "flag" and entries[-1][0]["kind"] == "flag" \
            and argument.get("abstract") and argument.get("abstract") == entries[-1][0].get("abstract")
        if same:
            entries[-1].append(argument)
        else:
            entries.append([argument])
    return entries


def synopsis(entry: list[dict]) -> str:
    first = entry[0]
    dots = " ..." if first["isRepeating"] else ""
    if first["kind"] == "positional":
        inner = f"Ar {macro_argument(first['valueName'])}{dots}"
    elif first["kind"] == "option":
        inner = f"{flag(option_names(first)[0])} Ar {macro_argument(first['valueName'])}"
    else:
        inner = " | ".join(flag(option_names(one)[0]) for one in entry)
    if not first["isOptional"]:
        return f".{inner}"
    return f".Op {inner}" + (" ..." if dots and first["kind"] == "option" else "")


def described(entry: list[dict]) -> str:
    first = entry[0]
    if first["kind"] == "positional":
        head = f".It Ar {macro_argument(first['valueName'])}"
    else:
        names = " , ".join(flag(name) for one in entry for name in option_names(one))
        value = f" Ar {macro_argument(first['valueName'])}" if first["kind"] == "option" else ""
        head = f".It {names}{value}"
    notes = []
    if values := first.get("allValues"):
        notes.append(f"Values: {', '.join(values)}.")
    default = first.get("defaultValue")
    if default and "efault" not in first.get("abstract", ""):
        notes.append(f"Default: {default}.")
    body = first.get("abstract", "")
    for more in (first.get("discussion", ""), *notes):
        if more:
            body += " " + more
    return f"{head}\n{text(body)}"


def listed(entries, head) -> str:
    items = "\n".join(f"{head(name)}\n{text(what)}" for name, what in entries)
    return f".Bl -tag -width Ds\n{items}\n.El"


def lowered(abstract: str) -> str:
    """As a NAME section has it: no capital, no full stop."""
    abstract = re.sub(r"\s+", " ", abstract).strip().rstrip(".")
    return abstract[:1].lower() + abstract[1:] if abstract[1:2].islower() or abstract[1:2] == " " else abstract


def page(title: str, name: str, abstract: str, body: list[str]) -> str:
    lines = [
        f".Dd {DATE}", f".Dt {title.upper()} 1", f'.Os "{SYSTEM}"', ".Sh NAME", f".Nm {macro_argument(name)}",
        f".Nd {text(lowered(abstract))}", *body,
    ]
    return "\n".join(lines) + "\n"


def verb_page(verb: dict) -> str:
    name = verb["commandName"]
    entries = pairs([argument for argument in verb.get("arguments", []) if is_shown(argument)])
    body = [".Sh SYNOPSIS", ".Nm plexus", f".Cm {macro_argument(name)}", *(synopsis(entry) for entry in entries),
            ".Sh DESCRIPTION", text(verb["abstract"])]
    for paragraph in paragraphs(verb.get("discussion", "")):
        body += [".Pp", paragraph]
    if entries:
        body += [".Pp", "The arguments are as follows:", ".Bl -tag -width Ds", *(described(entry) for entry in entries), ".El"]
    body += [".Sh FILES", listed(FILES, lambda name: f".It Pa {macro_argument(name)}"),
             ".Sh SEE ALSO", ".Xr plexus 1"]
    return page(f"plexus-{name}", f"plexus-{name}", verb["abstract"], body)


def main_page(command: dict, verbs: list[dict]) -> str:
    body = [".Sh SYNOPSIS", ".Nm plexus", ".Ar verb", ".Op Ar argument ...",
            ".Nm plexus", r".Cm help", ".Op Ar verb", ".Nm plexus", flag("--version").replace("Fl", ".Fl", 1),
            ".Sh DESCRIPTION",
            text("Plexus keeps two or more identical copies of a disk on files or block devices and serves it over NBD. "
                 "A disk that dies under load costs no data and no I/O error. " + command["abstract"])]
    for paragraph in paragraphs(command.get("discussion", "")):
        body += [".Pp", paragraph]
    body += [".Pp", "The verbs are as follows; each has a page of its own:", ".Bl -tag -width Ds"]
    for verb in verbs:
        body += [f".It Xr plexus-{verb['commandName']} 1", text(verb["abstract"])]
    body += [".El", ".Sh THE SERVICE", text(SERVICE),
             ".Sh ENVIRONMENT", listed(ENVIRONMENT, lambda name: f".It Ev {macro_argument(name)}"),
             ".Sh FILES", listed(FILES, lambda name: f".It Pa {macro_argument(name)}"),
             ".Sh SEE ALSO",
             *sorted(f".Xr plexus-{verb['commandName']} 1 ," for verb in verbs),
             ".Xr fstab 5 ,", ".Xr nbd\\-client 8"]
    return page("plexus", "plexus", command["abstract"], body)


def main() -> int:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    command = json.load(sys.stdin)["command"]
    verbs = [verb for verb in command["subcommands"] if verb["shouldDisplay"] and verb["commandName"] != "help"]
    (directory / "plexus.1").write_text(main_page(command, verbs), encoding="utf-8")
    for verb in verbs:
        (directory / f"plexus-{verb['commandName']}.1").write_text(verb_page(verb), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
