"""Builds the pages as a site (`make docs`) and checks them: every link, every command.

The pages are README, CONTRIBUTING, SECURITY, CHANGELOG and docs/; the references of settings and failure classes are
generated from the code. Links to the outside are not followed.
"""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cdi_dagster.cli.app import cdi
from cdi_dagster.core.failures import FAILURE_GUIDE
from cdi_dagster.settings import PREFIX, Settings

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = REPOSITORY / "build" / "docs"
TOP_PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
_LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`((?:make|cdi) [^`\n]+)`")


def sources() -> list[Path]:
    """Return all pages that a person wrote."""
    return [
        REPOSITORY / "README.md",
        *(REPOSITORY / name for name in TOP_PAGES),
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    ]


def settings_page() -> str:
    """Return the reference of the settings, from `Settings`."""
    lines = [
        "# Settings",
        "",
        "Generated from `cdi_dagster/settings.py`. Set in the environment, or in `cdi.env` in the folder `CDI_HOME`.",
        "",
        "| variable | default | |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = (
            ",".join(default)
            if isinstance(default, tuple)
            else str(default).lower()
            if default in (True, False)
            else default
        )
        text = f"`{shown}`" if shown not in ("", None, {}) else ""
        lines.append(f"| `{PREFIX}{name.upper()}` | {_cell(text)} | {_cell(field.description or '')} |")
    return "\n".join(lines) + "\n"


def failures_page() -> str:
    """Return the reference of the failure classes, from `FAILURE_GUIDE`."""
    lines = [
        "# Failure classes",
        "",
        "Generated from `cdi_dagster/core/failures.py`. What to do in detail: the [runbook](runbook.md).",
        "",
        "| class | meaning | by itself | what you do | owner | alert |",
        "|---|---|---|---|---|---|",
    ]
    for name, guide in FAILURE_GUIDE.items():
        alert = guide.alert_timing.lower().replace("_", " ")
        cells = (guide.meaning, guide.by_itself, guide.next_step, guide.owner, alert)
        lines.append(f"| [{name}](runbook.md#{name.lower()}) | {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def assemble() -> None:
    """Put the pages together in build/docs; files of the repository that they link to lie beside them."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(REPOSITORY / "docs", PAGES)
    (PAGES / "settings.md").write_text(settings_page(), encoding="utf-8")
    (PAGES / "failures.md").write_text(failures_page(), encoding="utf-8")
    for source in sources():
        below_docs = source.is_relative_to(REPOSITORY / "docs")
        page = PAGES / (
            source.relative_to(REPOSITORY / "docs") if below_docs else source.name.replace("README", "index")
        )
        text = source.read_text(encoding="utf-8")
        page.write_text(_LINK.sub(lambda link: _moved(link, source, page), text), encoding="utf-8")  # noqa: B023


def _moved(link: re.Match[str], source: Path, page: Path) -> str:
    """Return a link as it leads from the assembled page; a file outside docs/ is copied there as it is."""
    target = (source.parent / link[1]).resolve()
    if not target.is_relative_to(REPOSITORY) or not target.exists():
        return link[0]  # the strict build reports it
    if target.is_relative_to(REPOSITORY / "docs"):
        there = PAGES / target.relative_to(REPOSITORY / "docs")
    elif target.parent == REPOSITORY and target.suffix == ".md":
        there = PAGES / target.name.replace("README", "index")
    else:
        there = PAGES / "files" / (target.name + ".txt" if target.is_file() else target.name)
        there.parent.mkdir(exist_ok=True)
        shutil.copyfile(target, there)
    up = "../" * len(page.relative_to(PAGES).parents[:-1])
    return f"]({up}{there.relative_to(PAGES)}{link[2] or ''})"


def wrong_commands() -> list[str]:
    """Return what the pages name and does not exist: targets of make, commands and options of cdi."""
    return [
        f"{page.relative_to(REPOSITORY)}: {problem}"
        for page in sources()
        for command in _commands(page.read_text(encoding="utf-8"))
        if (problem := _problem(command))
    ]


def _commands(text: str) -> Iterator[str]:
    for language, block in _FENCE.findall(text):
        if language in ("", "bash", "sh"):
            # Of a table of commands, two lie in one line, with spaces between.
            for line in block.splitlines():
                yield from (part for part in re.split(r"\s{3,}", line.strip()) if part.startswith(("make ", "cdi ")))
    yield from _INLINE.findall(text)


def _problem(command: str) -> str | None:
    words = shlex.split(command.replace("…", "").replace("\\|", "|").partition(" #")[0].replace("'", ""))
    if words[0] == "make":
        targets = re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        name = next((word for word in words[1:] if "=" not in word), "help")
        return None if name.strip(".,;") in targets else f"`{command}`: there is no target {name}"
    found: click.Command | None = cdi
    for word in itertools.takewhile(lambda word: not word.startswith("-"), words[1:]):
        if isinstance(found, click.Group):
            found = found.get_command(click.Context(found), word.strip(".,;"))
            if found is None:
                return f"`{command}`: there is no command {word}"
    # Of a group without a command's name those of its commands too: it may have one that is meant then.
    commands = [found, *(found.commands.values() if isinstance(found, click.Group) else ())]
    options = {option for each in commands for parameter in each.params for option in parameter.opts}
    options |= {"--help", "-h", "--version"}
    unknown = [word for word in re.findall(r"--[a-z-]+", command) if word not in options]
    return f"`{command}`: there is no option {', '.join(unknown)}" if unknown else None


def main() -> int:
    """Check the commands, build the site strictly, and report where it is."""
    wrong = wrong_commands()
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    assemble()
    # Without the notice of a successor of the theme, which reads the same mkdocs.yml.
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if built.returncode:
        print(built.stdout + built.stderr, file=sys.stderr)
        return 1
    print(f"The site is in site/: open {(REPOSITORY / 'site' / 'index.html').as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
