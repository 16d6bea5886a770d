"""The part of deny.toml that needs no network and no cargo-deny: banned crates, licences, one crypto provider.

Looks at the crates that Linux builds really resolve to, not at Cargo.lock, which also names optional crates that nothing turns on.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict


def resolved():
    """Every crate the workspace builds on Linux, tests and build scripts included, as package records."""
    packages = {}
    for target in DENY["graph"]["targets"]:
        command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
        metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        # The resolve graph lists dependencies that no feature turns on; `cargo tree` is what says which are used.
        command = ["cargo", "tree", "--locked", "--workspace", "--target", target, "-e", "normal,build,dev"]
        tree = subprocess.run([*command, "--prefix", "none", "--format", "{p}"], check=True, stdout=subprocess.PIPE, text=True)
        used = {tuple(line.split()[:2]) for line in tree.stdout.splitlines() if line}
        for package in metadata["packages"]:
            if (package["name"], "v" + package["version"]) in used:
                packages[package["id"]] = package
    return list(packages.values())


def allowed(expression, licences):
    """Whether an SPDX expression can be met with these licences. `/` is the old way to write OR."""
    tokens = re.findall(r"[()]|[\w.+-]+", expression.replace("/", " OR "))

    def alternatives():
        met = conjunction()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = conjunction() or met
        return met

    def conjunction():
        met = licence()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = licence() and met
        return met

    def licence():
        token = tokens.pop(0)
        if token == "(":
            met = alternatives()
            tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":
            token = f"{token} {tokens.pop(0)} {tokens.pop(0)}"
        return token in licences

    return alternatives()


def problems(packages):
    names = {package["name"] for package in packages}
    for ban in DENY["bans"]["deny"]:
        if ban["name"] in names:
            yield f"{ban['name']} is banned: {ban['reason']}"
    if "aws-lc-rs" not in names:
        yield "aws-lc-rs is not among the crates: which crypto provider is it then?"
    licences = set(DENY["licenses"]["allow"])
    for package in packages:
        if not package["license"] or not allowed(package["license"], licences):
            yield f"{package['name']} {package['version']}: licence {package['license']!r} is not allowed"


with open("deny.toml", "rb") as file:
    DENY = tomllib.load(file)
PACKAGES = resolved()
VERSIONS = defaultdict(set)
for found in PACKAGES:
    VERSIONS[found["name"]].add(found["version"])
for name, versions in sorted(VERSIONS.items()):
    if len(versions) > 1:
        print(f"note: {name} in {len(versions)} versions: {', '.join(sorted(versions))}")
FOUND = list(problems(PACKAGES))
print("\n".join(FOUND) if FOUND else f"{len(PACKAGES)} crates, licences and bans in order")
sys.exit(1 if FOUND else 0)
