#!/usr/bin/env python3
"""Compare a Dockerfile-to-LLB converter with the golden set.

usage: python check.py [--tag T]... [--name GLOB]... [--diffs N] [--min-pass K] [--meta] COMMAND...

COMMAND is started once. It reads all chosen cases from stdin (one JSON object a
line, as in cases.jsonl) and writes one answer a line to stdout, in any order, in
the shape of expected.jsonl: {"name", "head", "ops", "image", "lint", "error"}.
"""

import argparse
import collections
import difflib
import fnmatch
import json
import os
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))


def load(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def ask(command, cases):
    """Feed the cases to COMMAND and return ({name: answer}, [complaints])."""
    try:
        proc = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as e:
        sys.exit(f"cannot start {command[0]}: {e.strerror}")

    def feed():
        try:
            for case in cases:
                proc.stdin.write(json.dumps(case, ensure_ascii=False).encode() + b"\n")
            proc.stdin.close()
        except OSError:
            pass  # the command went away; its missing answers will tell

    threading.Thread(target=feed, daemon=True).start()
    answers, complaints = {}, []
    for n, line in enumerate(proc.stdout, 1):
        if not line.strip():
            continue
        try:
            answer = json.loads(line)
            answers[answer["name"]] = answer
        except (ValueError, KeyError, TypeError) as e:
            complaints.append(f"output line {n} is no answer ({type(e).__name__}): {line[:120]!r}")
    code = proc.wait()
    if code:
        complaints.append(f"the command ended with status {code}")
    return answers, complaints


def digests(answer):
    return [op.get("digest") for op in answer.get("ops") or []]


def lint(answer):
    return sorted((w.get("rule", ""), w.get("line") or 0) for w in answer.get("lint") or [])


def meta(answer):
    return [
        {
            "description": (op.get("meta") or {}).get("description") or {},
            "caps": sorted((op.get("meta") or {}).get("caps") or []),
        }
        for op in answer.get("ops") or []
    ]


def compare(want, got, with_meta=False):
    """Return the list of parts that differ."""
    if got is None:
        return ["no answer"]
    if bool(want.get("error")) != bool(got.get("error")):
        return ["error"]
    parts = []
    if want.get("error"):
        return ["lint"] if lint(want) != lint(got) else parts
    if (want.get("head") or None) != (got.get("head") or None):
        parts.append("head")
    if digests(want) != digests(got):
        parts.append("ops")
    if want.get("image") != got.get("image"):
        parts.append("image")
    if lint(want) != lint(got):
        parts.append("lint")
    if with_meta and meta(want) != meta(got):
        parts.append("meta")
    return parts


def diff(want, got, indent="    "):
    a = json.dumps(want, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
    b = json.dumps(got, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
    lines = list(difflib.unified_diff(a, b, "expected", "got", lineterm="", n=2))
    return "\n".join(indent + x for x in lines) or indent + "(same JSON; the encoded bytes must differ)"


def show(want, got, parts, budget, with_meta):
    """Print why a case fails; returns how many op diffs are left to print."""
    if got is None:
        return budget
    if "error" in parts:
        print(
            "    expected",
            "an error" if want.get("error") else "no error",
            "\n    got     ",
            "error: " + str(got["error"]) if got.get("error") else "no error",
        )
        return budget - 1
    if "lint" in parts:
        w, g = collections.Counter(lint(want)), collections.Counter(lint(got))
        print("    lint missing", sorted((w - g).elements()), "unexpected", sorted((g - w).elements()))
    if "image" in parts:
        print("    image config:\n" + diff(want.get("image"), got.get("image")))
        budget -= 1
    if "ops" in parts or "head" in parts:
        a, b = want.get("ops") or [], got.get("ops") or []
        if len(a) != len(b):
            print(f"    {len(a)} ops expected, {len(b)} given")
        # an op whose inputs are right but whose digest is not is where it begins
        for i in range(max(len(a), len(b))):
            x = a[i] if i < len(a) else {}
            y = b[i] if i < len(b) else {}
            if x.get("digest") != y.get("digest"):
                print(f"    op {i}: {x.get('digest')} expected, {y.get('digest')} given")
                print(diff(x.get("op"), y.get("op")))
                budget -= 1
                break
    if "meta" in parts and with_meta:
        for i, (x, y) in enumerate(zip(meta(want), meta(got))):
            if x != y:
                print(f"    meta of op {i}:\n" + diff(x, y))
                budget -= 1
                break
    return budget


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tag", action="append", help="only cases with this tag (repeatable)")
    p.add_argument("--name", action="append", help="only cases of this name; * and ? match (repeatable)")
    p.add_argument("--diffs", type=int, default=3, metavar="N", help="show the first N differences (default 3)")
    p.add_argument("--min-pass", type=int, metavar="K", help="succeed when at least K cases pass")
    p.add_argument(
        "--meta", action="store_true", help="also compare op descriptions and caps (not part of the digests)"
    )
    p.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND...")
    o = p.parse_args()
    if not o.command:
        p.error("COMMAND is missing")
    cases = [
        c
        for c in load("cases.jsonl")
        if (not o.tag or set(o.tag) & set(c["tags"]))
        and (not o.name or any(fnmatch.fnmatchcase(c["name"], n) for n in o.name))
    ]
    if not cases:
        p.error("no case has that tag or name")
    want = {e["name"]: e for e in load("expected.jsonl")}
    answers, complaints = ask(o.command, cases)

    total, passed, kinds, left = collections.Counter(), collections.Counter(), collections.Counter(), o.diffs
    good, failed = 0, []
    for c in cases:
        got = answers.get(c["name"])
        parts = compare(want[c["name"]], got, o.meta)
        total.update(c["tags"])
        if not parts:
            good += 1
            passed.update(c["tags"])
            continue
        failed.append(c["name"])
        kinds.update(parts)
        if left > 0:
            print(f"FAIL {c['name']}: {', '.join(parts)}")
            left = show(want[c["name"]], got, parts, left, o.meta)
    if failed:
        print("failing:", " ".join(failed[:40]), f"... and {len(failed) - 40} more" if len(failed) > 40 else "")
        print("differing parts:", ", ".join(f"{k} {n}" for k, n in kinds.most_common()))
    for line in complaints[:5]:
        print("note:", line)
    for tag in sorted(total):
        print(f"{tag:14} {passed[tag]:4} / {total[tag]}")
    print(f"{'total':14} {good:4} / {len(cases)}")
    ok = good == len(cases) if o.min_pass is None else good >= o.min_pass
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
