"""Fuzz the decoders with atheris: bytes that no writer made must give a value or an error of slg_wds, nothing else.

    pip install 'slg-wds[fuzz]'
    python tools/fuzz/fuzz.py --seconds 60                    # every decoder in turn
    python tools/fuzz/fuzz.py record plan --seconds 1800      # some

Each decoder runs in processes of its own, below 1 GB of memory and 20 s for each input. What it finds lies in
OUT/DECODER: crash-, oom- and timeout- files, to be kept in tests/malformed/DECODER once they are mended.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

RSS_MB = 1024
SECONDS_EACH = 20
SLICE = 1 << 20  # inputs of one process: atheris keeps 100 to 600 bytes of each, which are not the decoder's
LONGEST = 1 << 16  # bytes of an input
FINDINGS = ("crash-", "oom-", "timeout-", "leak-")


def main() -> int:
    """Fuzz the named decoders; return 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("decoders", nargs="*", help="some of them (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each decoder")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="corpus and findings")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        return fuzz(given.worker, given.seconds, given.out)
    from fuzz_targets import TARGETS

    unknown = set(given.decoders) - set(TARGETS)
    if unknown:
        parser.error(f"no decoder {', '.join(sorted(unknown))}: there are {', '.join(TARGETS)}")
    failed = [run(name, given.seconds, given.out) for name in given.decoders or TARGETS]
    return 1 if any(failed) else 0


def run(name: str, seconds: int, out: Path) -> bool:
    """Fuzz one decoder and print a line about it; return whether it found anything."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    before = set(findings(folder))
    started = time.monotonic()
    inputs, peak, code, text = 0, 0, 0, ""
    while code == 0 and (left := seconds - (time.monotonic() - started)) >= 1:
        code, text = one_process(name, round(left), out)
        inputs += number("stat::number_of_executed_units", text)
        peak = max(peak, number("stat::peak_rss_mb", text))
    new = sorted(set(findings(folder)) - before)
    print(
        f"{name:<11} {inputs:>10,} inputs in {time.monotonic() - started:,.0f} s, {last('cov', text):,} places "
        f"covered, {last('corp', text):,} kept, {peak} MB; {len(new)} findings{''.join(f' {path}' for path in new)}"
        + ("" if code == 0 or new else f"; it ended with {code}: see {folder / 'log'}"),
        flush=True,
    )
    return code != 0 or bool(new)


def one_process(name: str, seconds: int, out: Path) -> tuple[int, str]:
    """Continue with a decoder's corpus for a while; return the exit code and libFuzzer's output."""
    log = out / name / "log"
    command = [sys.executable, __file__, "--worker", name, "--seconds", str(seconds), "--out", str(out)]
    with open(log, "wb") as stream:
        code = subprocess.run(command, stdout=stream, stderr=stream).returncode
    return code, log.read_text(errors="replace")


def findings(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(FINDINGS)]


def number(name: str, text: str) -> int:
    """Return a final statistic of libFuzzer."""
    found = re.findall(rf"{re.escape(name)}:\s+(\d+)", text)
    return int(found[-1]) if found else 0


def last(name: str, text: str) -> int:
    """Return the last value of a field in libFuzzer's lines."""
    found = re.findall(rf" {name}: (\d+)", text)
    return int(found[-1]) if found else 0


def fuzz(name: str, seconds: int, out: Path) -> int:
    """Be the worker. This never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["slg_wds"]):
        import fuzz_targets
    from fuzz_mutate import mutate
    from fuzz_seeds import seeds

    def decode(data: bytes) -> None:  # atheris wants no answer
        fuzz_targets.TARGETS[name](data)

    def mutator(data: bytes, longest: int, seed: int) -> bytes:
        return mutate(data, longest, seed, atheris.Mutate)

    folder, corpus = out / name, out / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for at, seed in enumerate(seeds(name)):
        (corpus / f"seed-{at:03d}").write_bytes(seed)
    flags = {
        "max_total_time": seconds,
        "runs": SLICE,
        "rss_limit_mb": RSS_MB,
        "timeout": SECONDS_EACH,
        "max_len": LONGEST,
        "print_final_stats": 1,
        "artifact_prefix": f"{folder}{os.sep}",
    }
    arguments = [sys.argv[0], *(f"-{flag}={value}" for flag, value in flags.items()), str(corpus)]
    atheris.Setup(arguments, decode, custom_mutator=mutator)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
