"""`brickyard completion`."""

from importlib import import_module

from ..flags import Command, Parsed, UsageError
from . import COMMANDS

COMMAND = Command("completion", COMMANDS["completion"], arguments="bash|zsh|fish", required=1, most=1)

_BASH = """\
_brickyard() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words
    case ${{COMP_WORDS[1]}} in
{cases}
    *) words="{commands}" ;;
    esac
    [ "$COMP_CWORD" -eq 1 ] && words="{commands}"
    case $word in
    -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
    *)
        if [ "$COMP_CWORD" -eq 1 ]; then
            COMPREPLY=($(compgen -W "$words" -- "$word"))
        else
            COMPREPLY=($(compgen -f -- "$word"))
        fi
        ;;
    esac
}}
complete -o filenames -F _brickyard brickyard
"""


def run(parsed: Parsed) -> int:
    """Print the script for a shell."""
    shell = parsed.arguments[0]
    if shell == "fish":
        print("\n".join(_fish()))
    elif shell in ("bash", "zsh"):
        cases = "\n".join(f'    {name}) words="{" ".join(_flags(name))}" ;;' for name in COMMANDS)
        script = _BASH.format(cases=cases, commands=" ".join(COMMANDS))
        print(script if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{script}", end="")
    else:
        raise UsageError(f"there is no completion for {shell!r}", "write bash, zsh or fish")
    return 0


def _flags(name: str) -> list[str]:
    command: Command = import_module(f".{name}", __package__).COMMAND
    return ["--help", *(f"--{flag.name}" for flag in command.flags)]


def _fish() -> list[str]:
    lines = []
    for name, summary in COMMANDS.items():
        lines.append(f"complete -c brickyard -n __fish_use_subcommand -f -a {name} -d '{summary}'")
        command: Command = import_module(f".{name}", __package__).COMMAND
        for flag in command.flags:
            short = f" -s {flag.short}" if flag.short else ""
            takes = "" if flag.kind == "switch" else " -r"
            text = flag.help.replace("'", "\\'")
            when = f"'__fish_seen_subcommand_from {name}'"
            lines.append(f"complete -c brickyard -n {when} -l {flag.name}{short}{takes} -d '{text}'")
    return lines
